"""What Keras users expect of `fit`: the rows of the table, against plain `keras.Model`."""

import keras
import pytest

import keras_pergrad as pg
from tests.twins import (
    BATCH,
    data,
    dense,
    expect_bit_equal,
    expect_close,
    noisy,
    sampling,
    trained,
)

RECORD = pg.PerSample(check="always", on_failure="record")
MEAN = pg.PerSample(check="always", aggregator="mean")
WAYS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 2},
    "auto_jit": {"jit_compile": "auto"},
}
slow = pytest.mark.slow
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.mark.thinned(3)
@each_way
@pytest.mark.parametrize("make", [pytest.param(dense, marks=slow), noisy])  # noise is harder
@pytest.mark.parametrize("per_sample", ["off", RECORD], ids=["off", "measured"])
def test_bit_equal_to_plain_keras(make, per_sample, way):
    """Without XLA: Keras refuses it under op determinism."""
    options = {"optimizer": "adam", "metrics": ["mae"], "weighted_metrics": ["mse"], **way}
    plain, measured = trained(make, None, **options), trained(make, per_sample, **options)
    expect_bit_equal(plain, measured)


@pytest.mark.parametrize(
    "engine", [*(pytest.param(name, marks=slow) for name in ("loop", "vectorized")), "jacobian"]
)
def test_bit_equal_with_every_engine(engine):
    settings = pg.PerSample(engine=engine, check="always", on_failure="record")
    make = sampling if engine == "jacobian" else noisy  # it refuses activity regularizers
    plain = trained(make, None, optimizer="adam")
    expect_bit_equal(plain, trained(make, settings, optimizer="adam"))


@pytest.mark.thinned(2)
@each_way
def test_the_mean_trains_as_the_batch_gradient(way):
    """SGD: Adam divides by the size of gradients, which turns rounding into steps."""
    plain = trained(dense, None, optimizer=keras.optimizers.SGD(0.1), **way)
    measured = trained(dense, MEAN, optimizer=keras.optimizers.SGD(0.1), **way)
    # float32, eight steps of 0.1: rounding of another order of sums.
    expect_close(plain, measured, rtol=1e-5)


OPTIMIZERS = {
    "accumulation": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2),
    "clipped": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "decayed": lambda: keras.optimizers.AdamW(weight_decay=0.1),
    "averaged": lambda: keras.optimizers.SGD(0.1, use_ema=True),
    "scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ),
}


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(make, id=name, marks=() if name == "accumulation" else slow)
        for name, make in OPTIMIZERS.items()
    ],
)
def test_optimizers(optimizer):
    """What the optimizer does after the measurement is untouched."""
    plain = trained(noisy, None, optimizer=optimizer())
    expect_bit_equal(plain, trained(noisy, RECORD, optimizer=optimizer()))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    """Keras itself cannot add an activity regularizer in float16."""
    plain = trained(_in_policy(policy, sampling), None, optimizer="adam")
    expect_bit_equal(plain, trained(_in_policy(policy, sampling), RECORD, optimizer="adam"))
    settings = pg.PerSample(check="always")
    model, _ = trained(_in_policy(policy, dense), settings, optimizer="adam")
    assert model.equivalence_report.equivalent
    assert model.equivalence_report.tolerance.dtype == policy.removeprefix("mixed_")


def _in_policy(policy, make):
    def made(functional, sequential):
        keras.config.set_dtype_policy(policy)
        return make(functional, sequential)

    return made


def test_validation_callbacks_and_history():
    """No key is added, nothing leaks into validation, floats reach callbacks."""
    heard = []
    hear = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: heard.append(logs))

    def fit(model):
        x, y, _ = data()
        stop = keras.callbacks.EarlyStopping("val_loss", patience=5)
        return model.fit(
            x, y, batch_size=4, epochs=2, validation_data=(x, y), callbacks=[stop, hear], verbose=0
        )

    options = {"optimizer": "adam", "metrics": ["mae"], "fit": fit}
    plain = trained(noisy, None, **options)
    expect_bit_equal(plain, trained(noisy, RECORD, **options))
    assert all(isinstance(value, float) for logs in heard for value in logs.values())
    assert set(plain[1]) == {"loss", "mae", "val_loss", "val_mae"}


def test_train_on_batch_evaluate_and_predict():

    def fit(model):
        x, y, _ = data()
        model.train_on_batch(x[:4], y[:4])
        history = keras.callbacks.History()
        history.history = {
            "test": model.evaluate(x, y, verbose=0, return_dict=True)["loss"],
            "prediction": model.predict(x, verbose=0),
        }
        return history

    plain = trained(noisy, None, fit=fit, optimizer="adam")
    expect_bit_equal(plain, trained(noisy, RECORD, fit=fit, optimizer="adam"))


def test_a_second_fit_and_a_failed_callback():
    """An exception in a callback leaves the next fit clean."""

    def fail(epoch, logs):
        raise RuntimeError("from the callback")

    def fit(model):
        x, y, _ = data()
        with pytest.raises(RuntimeError, match="from the callback"):
            callback = keras.callbacks.LambdaCallback(on_epoch_end=fail)
            model.fit(x, y, batch_size=4, callbacks=[callback], verbose=0)
        return model.fit(x, y, batch_size=4, verbose=0)

    plain = trained(noisy, None, fit=fit, optimizer="adam")
    expect_bit_equal(plain, trained(noisy, RECORD, fit=fit, optimizer="adam"))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("check", ["first", "always"])
def test_bit_equal_after_many_steps_of_a_large_rate(check):
    """A reader of a gradient can keep TensorFlow from regrouping a product of the update."""
    inputs, targets, weights = data()

    def fit(model):
        return model.fit(inputs, targets, sample_weight=weights, batch_size=BATCH, epochs=6)

    settings = pg.PerSample(check=check, on_failure="record")
    plain, measured = (
        trained(noisy, each, fit=fit, optimizer=keras.optimizers.SGD(0.1))
        for each in (None, settings)
    )
    expect_bit_equal(plain, measured)
