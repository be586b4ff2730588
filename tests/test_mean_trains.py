"""`aggregator="mean"` trains as plain Keras does, on models of every kind."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests import planted
from tests.problems import floats, images, whole
from tests.problems.kinds import VAEComputeLoss
from tests.twins import BATCH, ROWS, data, dense, expect_bit_equal, expect_close, trained

pytestmark = pytest.mark.usefixtures("deterministic")
MEAN = pg.PerSample(check="off", aggregator="mean")
T, NORMAL = 3, keras.initializers.RandomNormal(stddev=1.0, seed=4)


def _noisy(functional, sequential):
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1"}
    hidden = [layers.Dense(6, "tanh", **options), layers.Dropout(0.3), layers.GaussianNoise(0.2)]
    return sequential([keras.Input((3,)), *hidden, layers.Dense(2, **options)])


def _lstm(functional, sequential):
    return sequential([keras.Input((T, 2)), layers.LSTM(3), layers.Dense(2)])


class MeasuredVAE(pg.PerGradMixin, VAEComputeLoss):
    """The VAE of the problems, which can be measured."""


def _vae(functional, sequential):
    model = VAEComputeLoss() if functional is keras.Model else MeasuredVAE()
    model.build((None, 5))
    return model


def _words_in():
    """Embeddings of size one, so that every weight of the LSTM has something to learn."""
    embedding = layers.Embedding(6, 3, mask_zero=True, embeddings_initializer=NORMAL)
    return [keras.Input((T,), dtype="int32"), embedding]


def _masked(functional, sequential):
    """The LSTM drops the mask, so that the samples' losses are plain."""
    return sequential([*_words_in(), layers.LSTM(3), layers.Dense(2)])


def _masked_outputs(functional, sequential):
    """The mask reaches the loss, whose denominator counts positions of the whole batch."""
    return sequential([*_words_in(), layers.LSTM(3, return_sequences=True), layers.Dense(2)])


def _two_outputs(functional, sequential):
    start = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(start)
    return functional(start, [layers.Dense(2)(hidden), layers.Dense(1)(hidden)])


def _in_policy(policy):
    def made(functional, sequential):
        keras.config.set_dtype_policy(policy)
        return dense(functional, sequential)

    return made


def _fit(*of_fit, **options):
    """A `fit` of the given data; 14 rows in batches of 4, so that the last batch is of 2."""
    return lambda model: model.fit(
        *of_fit, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, **options
    )


def _words():
    words = whole(6, ROWS, T, seed=1)
    words[:, 0] = np.maximum(words[:, 0], 1)  # no row is all padding
    return words


def _mse(reduction):
    return keras.losses.MeanSquaredError(reduction=reduction)


# Model, what `fit` gets, what `compile` gets, tolerance. In float32 1e-5 of the largest weight is
# a hundred roundings, for eight steps of another order of sums. In mixed precision gradients are
# rounded to 1e-3 (float16) or 8e-3 (bfloat16) of themselves, and all steps together are half a
# weight: its share of that, as roundings of one step and the next partly cancel.
CASES = {
    "noise_and_regularizers": (_noisy, lambda: _fit(*data()[:2]), {}, 1e-5),
    "lstm": (_lstm, lambda: _fit(floats(ROWS, T, 2, seed=1), data()[1]), {}, 1e-5),
    "vae_compute_loss": (_vae, lambda: _fit(images(ROWS, 5, seed=1)), {"loss": None}, 1e-5),
    "masked_lstm": (_masked, lambda: _fit(_words(), data()[1]), {}, 1e-5),
    "masked_outputs": (_masked_outputs, lambda: _fit(_words(), floats(ROWS, T, 2)), {}, 1e-5),
    "sum": (dense, lambda: _fit(*data()[:2]), {"loss": _mse("sum")}, 1e-5),
    "no_reduction": (dense, lambda: _fit(*data()[:2]), {"loss": _mse(None)}, 1e-5),
    "sample_weight": (dense, lambda: _fit(*data()[:2], sample_weight=data()[2]), {}, 1e-5),
    "several_outputs": (
        _two_outputs,
        lambda: _fit(data()[0], [data()[1], floats(ROWS, 1, seed=3)]),
        {"loss": ["mse", "mae"], "loss_weights": [0.3, 2.0]},
        1e-5,
    ),
    "accumulation": (dense, lambda: _fit(*data()[:2]), {"gradient_accumulation_steps": 2}, 1e-5),
    "mixed_float16": (_in_policy("mixed_float16"), lambda: _fit(*data()[:2]), {}, 5e-4),
    "mixed_bfloat16": (_in_policy("mixed_bfloat16"), lambda: _fit(*data()[:2]), {}, 4e-3),
}


TELLING = """
    accumulation masked_lstm mixed_float16 noise_and_regularizers sample_weight several_outputs
    vae_compute_loss
""".split()


def _train(name: str, per_sample):
    """A new optimizer each time. SGD: Adam divides by the gradients' size, so rounding grows."""
    make, fit, options, _ = CASES[name]
    steps = options.get("gradient_accumulation_steps")
    options = {key: value for key, value in options.items() if not key.startswith("gradient_")}
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps)
    return trained(make, per_sample, fit=fit(), optimizer=optimizer, **options)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in CASES],
)
def test_the_mean_trains_as_the_batch_gradient(name):
    plain = _train(name, None)
    tolerance = CASES[name][-1]
    expect_close(plain, _train(name, MEAN), rtol=tolerance)
    _expect_trained(plain[0], name, 10 * tolerance)


def _expect_trained(model, name: str, least: float) -> None:
    """Training moved every weight that is compared by more than the tolerance lets pass."""
    make, policy = CASES[name][0], keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    start = make(keras.Model, keras.Sequential)
    keras.config.set_dtype_policy(policy)
    scale = max(np.abs(w).max() for w in model.get_weights())
    for before, after in zip(start.trainable_variables, model.trainable_variables, strict=True):
        assert np.abs(before.numpy() - after.numpy()).max() > least * scale, before.path


def test_the_comparison_notices_gradients_one_per_cent_too_large():
    """A step 1 % longer is a gradient 1 % larger."""
    make, fit, _, tolerance = CASES["sum"]
    plain = trained(make, None, fit=fit(), optimizer=keras.optimizers.SGD(0.1))
    longer = trained(make, None, fit=fit(), optimizer=keras.optimizers.SGD(0.101))
    with pytest.raises(AssertionError):
        expect_close(plain, longer, rtol=tolerance)


def test_a_mean_that_is_wrong_is_not_applied():
    wrong = planted.Planted(planted.scaled_everywhere(1.01))
    settings = pg.PerSample(engine=wrong, check="off", aggregator="mean")
    with pytest.raises(pg.SeparationError, match="do not add up"):
        _train("lstm", settings)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("masked_lstm", "off"),
        ("masked_outputs", "first"),
        pytest.param("masked_lstm", "first", marks=pytest.mark.slow),
        pytest.param("masked_outputs", "off", marks=pytest.mark.slow),
    ],
)
def test_a_masked_model_in_fit_is_bit_equal_to_plain_keras(name, check):
    settings = pg.PerSample(check=check, on_failure="record")
    plain, measured = _train(name, None), _train(name, settings)
    expect_bit_equal(plain, measured)
    if check == "first":
        assert measured[0].equivalence_report.equivalent is (name == "masked_lstm")


@pytest.mark.parametrize("check", ["off", "first"])
def test_the_history_without_reduction_is_that_of_plain_keras(check):
    """Keras logs the mean of the [B] losses, and differentiates their sum."""
    settings = pg.PerSample(check=check, on_failure="record")
    expect_bit_equal(_train("no_reduction", None), _train("no_reduction", settings))
