"""Runs that are no ordinary training step: at inference, in threads, with noise of TensorFlow."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from keras_pergrad.aggregators import Mean
from tests import oracle
from tests.cases import make_case
from tests.problems import by_name, compiled, floats
from tests.samples import ENGINES, each_engine, expect_exact, materialized
from tests.twins import dense, expect_close, trained


def _two_modes() -> keras.Model:
    """Dropout, and statistics that are far from those of any batch here."""
    normalize = layers.BatchNormalization()
    chain = [layers.Dense(4, "tanh"), normalize, layers.Dropout(0.5), layers.Dense(2)]
    model = compiled(keras.Sequential([keras.Input((3,)), *chain]))
    normalize.moving_mean.assign([0.5, -1.0, 2.0, 0.1])
    normalize.moving_variance.assign([0.3, 2.0, 1.0, 4.0])
    return model


def _at_inference(model, x, y) -> list[np.ndarray]:
    """[B, *shape] per variable: plain Keras, one sample at a time, `training=False`."""
    rows = []
    for i in range(len(x)):
        with tf.GradientTape() as tape:
            y_pred = model(x[i : i + 1], training=False)
            loss = model.compute_loss(x[i : i + 1], y[i : i + 1], y_pred, training=False)
        rows.append([g.numpy() for g in tape.gradient(loss, model.trainable_weights)])
    return [np.stack(of_one) for of_one in zip(*rows, strict=True)]


@pytest.mark.thinned(3)
@each_engine
@pytest.mark.parametrize("of", ["own", "contribution"])
def test_at_inference_nothing_drops_out_and_the_moving_statistics_count(float64, engine, of):
    model, (x, y) = _two_modes(), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    expected = _at_inference(model, x, y)
    with oracle.expect_unchanged(model):
        found = materialized(model, x, y, engine=engine, of=of, training=False)
    expect_exact(found, expected, "float64")
    if of == "own":
        trained = materialized(model, x, y, engine=engine, of=of)
        assert oracle.largest_difference(trained, expected) > 0.1 * oracle.global_norm(expected)


class StatefulNoise(layers.Layer):
    """Adds `tf.random.normal`, which has a state of its own, inside TensorFlow."""

    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)


def _noisy(cls) -> keras.Model:
    return cls([keras.Input((3,)), layers.Dense(4), StatefulNoise(), layers.Dense(2)])


def _equal_samples(size=6):
    return np.repeat(floats(1, 3, seed=1), size, 0), np.repeat(floats(1, 2, seed=2), size, 0)


@each_engine
def test_noise_of_tensorflows_own_by_hand(engine):
    """Each sample has its row of the draw, and the check sees the same draw on both sides."""
    model, batch = compiled(_noisy(keras.Sequential)), _equal_samples()
    tf.random.set_seed(1)
    g = pg.per_sample_gradients(model, *batch, engine=engine)
    assert len(np.unique(g.norms().numpy())) == 6
    tf.random.set_seed(1)
    expected = oracle.batch_gradient(model, *batch)
    expect_exact([np.asarray(mean) for mean in g.mean()], expected)
    report = pg.check_equivalence(model, *batch, engine=engine)
    assert report.equivalent and report.max_relative_error < 1e-5


class Listening(Mean):
    """The mean, which keeps the norms of the sample gradients that it was given."""

    def __init__(self, size: int):
        self.norms = tf.Variable(tf.zeros(size), trainable=False)

    def aggregate(self, g):
        self.norms.assign(g.norms())
        return super().aggregate(g)


@pytest.mark.thinned(2)
@each_engine
def test_noise_of_tensorflows_own_in_fit(engine):
    """Noise shared by the samples has another mean gradient than the step's real noise."""
    model, heard = _noisy(pg.PerGradSequential), Listening(8)
    settings = pg.PerSample(engine, check="always", aggregator=heard)
    model.compile("sgd", "mse", per_sample=settings)
    model.fit(*_equal_samples(8), batch_size=8, shuffle=False, verbose=0)
    report = model.equivalence_report
    assert report.equivalent and report.oracle.passed and report.coupling.passed
    assert len(np.unique(heard.norms.numpy())) == 8


THREADED = ("dense", "conv2d_groups", "two_dropouts", "embedding_repeated_ids", "conv2d", "mse")


def test_threads_with_models_of_their_own_get_the_serial_results(float64):
    """Converters, seeds and attributes are put back process-wide: threads must not meet there."""
    cases = [make_case(by_name(name)) for name in THREADED]

    def norms(case, results, k):
        engine = ENGINES[k % len(ENGINES)]
        g = pg.per_sample_gradients(case.model, *case.batch, engine=engine)
        results[k] = g.squared_norms().numpy()

    serial, threaded = {}, {}
    for k, case in enumerate(cases):
        norms(case, serial, k)
    threads = [threading.Thread(target=norms, args=(c, threaded, k)) for k, c in enumerate(cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(threaded) == sorted(serial)
    for k, expected in serial.items():
        np.testing.assert_allclose(threaded[k], expected, rtol=1e-12, err_msg=THREADED[k])


def _trained_within(budget: int):
    settings = pg.PerSample(check="always", aggregator="mean", memory_budget=budget)
    return trained(dense, settings, optimizer=keras.optimizers.SGD(0.1))


@pytest.mark.usefixtures("deterministic")
def test_a_small_memory_budget_in_fit_changes_nothing():
    """Chunks of one sample in place of one chunk: the same training, and the same report."""
    whole, parts = _trained_within(2**30), _trained_within(1)
    # float32, eight steps of 0.1: sums of four gradients in another order.
    expect_close(whole, parts, rtol=1e-5)
    one, other = whole[0].equivalence_report, parts[0].equivalence_report
    assert one.equivalent and other.equivalent and one.step == other.step
    for a, b in zip(one.rows, other.rows, strict=True):
        assert a.path == b.path
        assert a.batch_norm == pytest.approx(b.batch_norm, rel=1e-4)
        assert a.mean_norm == pytest.approx(b.mean_norm, rel=1e-4)
