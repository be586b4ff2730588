"""The silent errors of other libraries, as far as they concern these engines and `fit`."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.cases import TOLERANCE, make_case
from tests.problems import by_name, compiled, floats
from tests.samples import each_engine, expect_exact, materialized

X, Y = floats(16, 3, seed=1), floats(16, 2, seed=2)


def _expect_own(name: str, engine: str) -> None:
    case = make_case(by_name(name))
    expected = oracle.own_gradients(case.model, *case.batch)
    found = materialized(case.model, *case.batch, engine=engine, of="own")
    expect_exact(found, expected, "float64")


def _expect_not_equivalent(name: str, engine: str = "vectorized") -> pg.EquivalenceReport:
    case = make_case(by_name(name))
    report = pg.check_equivalence(case.model, *case.batch, engine=engine)
    assert not report.equivalent
    return report


@pytest.mark.parametrize("engine", ["vectorized", "jacobian"])
def test_1_noise_differs_by_sample_and_by_step(engine):
    """JAX Privacy draws one mask, and one epsilon, for all samples and steps."""
    chain = [keras.Input((3,)), layers.Dense(4), layers.GaussianNoise(0.5, seed=1)]
    model = pg.PerGradSequential([*chain, layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine=engine, check="always"))
    same = np.repeat(X[:1], 8, axis=0), np.repeat(Y[:1], 8, axis=0)
    first = pg.per_sample_gradients(model, *same, engine=engine).norms().numpy()
    model.fit(X, Y, batch_size=16, verbose=0)
    second = pg.per_sample_gradients(model, *same, engine=engine).norms().numpy()
    assert len(np.unique(first)) == 8
    assert len(np.unique(second)) == 8
    assert not np.intersect1d(first, second).size


def _normalized(**options) -> keras.Model:
    chain = [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    model = pg.PerGradSequential(chain)
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    return model


def test_2_batch_normalization_learns_its_statistics():
    """JAX Privacy leaves the moving statistics at 0: `evaluate` gives 83 instead of 2."""
    losses = []
    for per_sample in (None, pg.PerSample(check="always", on_failure="record")):
        keras.utils.set_random_seed(0)
        model = _normalized(per_sample=per_sample)
        model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        losses.append(model.evaluate(X, Y, verbose=0))
        assert np.any(model.layers[1].moving_mean.numpy())
    # One graph has more in it than the other; the numbers are the same to a rounding.
    np.testing.assert_allclose(*losses, rtol=1e-6)


class OwnStep(pg.PerGradModel):
    """A model with its own `train_step`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        return {"loss": ops.zeros(())}


def test_3_an_own_train_step_is_never_replaced_in_silence():
    """JAX Privacy replaces it, and never calls it."""
    with pytest.raises(pg.PerGradError, match="compute_loss"):
        OwnStep().compile("sgd", "mse", per_sample=True)
    model = OwnStep()
    model.compile("sgd", "mse")
    assert model.fit(X, Y, verbose=0).history["loss"] == [0.0]


@each_engine
def test_4_norms_are_measured_with_dropout_on(engine):
    """TF Privacy's fast path switches dropout off: gradients "clipped to 1" reach 7.8."""
    case = make_case(by_name("two_dropouts"))
    expected = oracle.contributions_by_weight(case.model, *case.batch)
    norms = np.sqrt(sum((g.reshape(len(g), -1) ** 2).sum(axis=1) for g in expected))
    found = pg.per_sample_gradients(case.model, *case.batch, engine=engine).norms()
    np.testing.assert_allclose(found, norms, rtol=TOLERANCE["float32"])


@each_engine
@pytest.mark.parametrize("name", ["dense_called_twice", "dense_on_two_inputs"])
def test_5_norms_of_shared_weights(float64, name, engine):
    """TF Privacy adds squared norms of the uses; too small, the bound is violated."""
    case = make_case(by_name(name))
    expected = oracle.own_gradients(case.model, *case.batch)
    norms = sum((g.reshape(len(g), -1) ** 2).sum(axis=1) for g in expected)
    found = pg.per_sample_gradients(case.model, *case.batch, engine=engine).squared_norms()
    np.testing.assert_allclose(found, norms, rtol=1e-10)


def test_6_batch_normalization_is_not_accepted_in_silence():
    """TF Privacy accepts it in its vectorized path, and the first layer never moves."""
    model = _normalized(per_sample=pg.PerSample(aggregator="mean"))
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(X, Y, batch_size=8, verbose=0)
    assert any(cause.where for cause in caught.value.report.causes)


@pytest.mark.thinned(3)
@each_engine
@pytest.mark.parametrize("name", ["embedding_mask_zero", "lstm_masked", "embedding_repeated_ids"])
def test_7_padding_and_repeated_ids(float64, name, engine):
    """Opacus: `Embedding(padding_idx=0)` is off by 150 %."""
    _expect_own(name, engine)


@each_engine
@pytest.mark.parametrize("name", ["tied_transposed_kernel", "reversible_embedding_tied"])
def test_8_weights_tied_by_a_function(float64, name, engine):
    """Opacus: off by 70 %."""
    _expect_own(name, engine)


@each_engine
def test_9_a_sum_is_not_silently_a_mean(float64, engine):
    """Opacus: everything × B."""
    _expect_own("sum", engine)
    report = _expect_not_equivalent("sum", engine)
    # The mean of B own gradients is 1/B of the gradient of their sum: off by 1 - 1/4.
    assert abs(report.max_relative_error - 0.75) < 1e-9


@pytest.mark.parametrize(
    "name", ["batch_normalization_without_weights", "batch_normalization_training", "circle"]
)
def test_10_samples_that_interact_are_noticed(name):
    """Opacus: BatchNormalization without weights, and contrastive losses, pass."""
    assert not _expect_not_equivalent(name).coupling.passed


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Centered(layers.Layer):
    """Batch centering by hand: no layer type to recognise it by."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


@each_engine
def test_10_centering_by_hand_is_noticed(engine):
    chain = [keras.Input((3,)), layers.Dense(4, "tanh"), Centered(), layers.Dense(2)]
    model = compiled(keras.Sequential(chain))
    report = pg.check_equivalence(model, X, Y, engine=engine)
    assert not report.equivalent
    assert not report.coupling.passed


@each_engine
def test_11_a_masked_mean_is_not_each_samples_own(float64, engine):
    """Opacus: gradients × 1.5 of each sample's own, where 4 of 6 are kept."""
    problem = by_name("mask")
    case = make_case(problem)
    own = materialized(case.model, *case.batch, engine=engine, of="own")
    contribution = materialized(case.model, *case.batch, engine=engine)
    for row, ratio in enumerate(problem.contribution_weights()):
        for mine, part in zip(own, contribution, strict=True):
            np.testing.assert_allclose(part[row], ratio * mine[row], rtol=1e-10, atol=1e-14)
    _expect_not_equivalent("mask", engine)


@each_engine
def test_12_a_flattened_sequence_keeps_its_samples(float64, engine):
    """Opacus: `(B, T, d) → (B·T, d)` changes the number of samples."""
    _expect_own("flattened_sequence", engine)
    case = make_case(by_name("flattened_sequence"))
    assert pg.per_sample_gradients(case.model, *case.batch, engine=engine).num_samples == 4


def test_14_the_mean_of_squares_is_no_squared_mean(float64):
    """Noise scales are wrong by 40 % with the one in place of the other."""
    case = make_case(by_name("dense"))
    g = pg.per_sample_gradients(case.model, *case.batch)
    for moment, rows in zip(g.second_moment(), g.materialize().values(), strict=True):
        np.testing.assert_allclose(moment, (rows.numpy() ** 2).mean(axis=0), rtol=1e-12)


@each_engine
@pytest.mark.parametrize("of", ["own", "contribution"])
def test_15_no_factor_of_the_batch_size(float64, of, engine):
    """BackPACK's quantities carry 1/N or 1/N²."""
    case = make_case(by_name("dense"))
    x, y = np.concatenate([case.x, case.x]), np.concatenate([case.y, case.y])
    once = pg.per_sample_gradients(case.model, case.x, case.y, engine=engine, of=of).norms()
    twice = pg.per_sample_gradients(case.model, x, y, engine=engine, of=of).norms()
    np.testing.assert_allclose(np.tile(once, 2), twice, rtol=1e-12)
