"""Bad batches and bad models: one clear sentence, or a clear answer, and nothing lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import by_name, compiled, floats
from tests.samples import each_engine, expect_exact, materialized


def _dense(loss="mse") -> keras.Model:
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)


def _sequence() -> keras.Model:
    return compiled(keras.Sequential([keras.Input((4, 3)), layers.Dense(2)]))


@each_engine
@pytest.mark.parametrize("sizes", [(4, 1), (4, 3), (1, 4)])
def test_leading_sizes_differ(engine, sizes):
    x, y = floats(sizes[0], 3), floats(sizes[1], 2)
    with pytest.raises(pg.DataError) as caught:
        pg.per_sample_gradients(_dense(), x, y, engine=engine)
    assert f"'x': {sizes[0]}" in str(caught.value)
    assert f"'y': {sizes[1]}" in str(caught.value)


def test_sample_weight_of_another_size():
    with pytest.raises(pg.DataError, match="'sample_weight': 1"):
        pg.per_sample_gradients(_dense(), floats(4, 3), floats(4, 2), floats(1))


@each_engine
@pytest.mark.parametrize("size", [4, 3], ids=["T_equals_B", "T_differs"])
def test_one_weight_a_sample_against_a_loss_a_position(engine, size):
    batch = floats(size, 4, 3), floats(size, 4, 2), floats(size)
    with pytest.raises(pg.DataError) as caught:
        pg.per_sample_gradients(_sequence(), *batch, engine=engine).mean()
    assert f"({size},)" in str(caught.value)
    assert f"({size}, 4)" in str(caught.value)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class IgnoresSamples(keras.Sequential):
    """Its loss depends on the weights alone."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(self.layers[0].kernel))


@each_engine
def test_a_loss_that_ignores_the_samples(engine):
    model = compiled(IgnoresSamples([keras.Input((3,)), layers.Dense(2)]), None)
    x = floats(4, 3, seed=1)
    g = pg.per_sample_gradients(model, x, engine=engine)
    expected = oracle.batch_gradient(model, x, None)
    found = [np.asarray(m + r) for m, r in zip(g.mean(), g.batch_term, strict=True)]
    expect_exact(found, expected)


@each_engine
def test_a_weight_without_gradient_is_named_with_a_reason(engine):
    problem = by_name("weight_without_gradient")
    model, batch = problem.build(), problem.batch()
    g = pg.per_sample_gradients(model, *batch, engine=engine)
    rows = g.materialize()
    assert not np.any(rows["stopped/kernel"])
    assert set(g.unconnected) == {"stopped/kernel", "stopped/bias"}
    assert all(g.unconnected.values())
    assert "stopped/kernel" in g.summary()
    report = pg.check_equivalence(model, *batch, engine=engine)
    assert report.equivalent
    assert "stopped/kernel" in str(report)


def _strings() -> keras.Model:
    start = keras.Input((3,), dtype="string")
    ids = layers.StringLookup(vocabulary=["a", "b", "c"])(start)
    hidden = layers.Flatten()(layers.Embedding(4, 2)(ids))
    return compiled(keras.Model(start, layers.Dense(2)(hidden)))


@each_engine
def test_string_inputs_are_exact(engine):
    x = tf.constant([["a", "b", "c"], ["c", "c", "?"], ["b", "a", "a"]])
    y = floats(3, 2)
    model = _strings()
    expected = oracle.own_gradients(model, x, y)
    found = materialized(model, x, y, engine=engine, of="own")
    expect_exact(found, expected)


def test_sparse_inputs():
    dense = floats(4, 3, seed=1)
    dense[:, 1] = 0
    x, y, model = tf.sparse.from_dense(dense), floats(4, 2, seed=2), _dense()
    expected = oracle.own_gradients(model, dense, y)
    found = materialized(model, x, y, engine="loop", of="own")
    expect_exact(found, expected)
    with pytest.raises(pg.UnsupportedError, match="loop"):
        pg.per_sample_gradients(model, x, y, engine="vectorized").mean()


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class MeanOfRows(layers.Layer):
    """The mean over the ragged axis of scaled values."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

    def call(self, inputs):
        return tf.reduce_mean(inputs * self.scale, axis=1)[:, None]


def test_ragged_inputs():
    x = tf.ragged.constant([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]])
    start = keras.Input((None,), ragged=True)
    model = compiled(keras.Model(start, MeanOfRows()(start)))
    y = np.zeros((3, 1), "float32")
    means = np.array([1.5, 3.0, 5.0])
    [found] = materialized(model, x, y, engine="loop", of="own")
    # (s m)² has the derivative 2 s m² at s = 1; float32 rounding of three-digit numbers.
    np.testing.assert_allclose(found, 2 * means**2, rtol=1e-6)
    with pytest.raises(pg.UnsupportedError, match="loop"):
        pg.per_sample_gradients(model, x, y, engine="vectorized").mean()


def _lists():
    return [[1.0, 2.0, 3.0], [1.0]], floats(2, 2)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (lambda: (np.float32(1.0), floats(4, 2)), "leading axis"),
        (lambda: (None, floats(4, 2)), "inputs"),
        (lambda: (tf.data.Dataset.from_tensors(0), None), "one batch"),
        (lambda: (iter([(floats(4, 3), floats(4, 2))]), None), "one batch.*Received: x=list_it"),
        (lambda: (lambda: floats(4, 3), None), "one batch.*Received: x=function"),
        (_lists, "Pad|shape|length"),
    ],
    ids=["scalar", "none", "dataset", "generator", "function", "rows_of_different_lengths"],
)
@pytest.mark.parametrize("ask", [pg.per_sample_gradients, pg.check_equivalence])
def test_what_is_no_batch(batch, words, ask):
    with pytest.raises(pg.PerGradError, match=words):
        ask(_dense(), *batch())


LOSSES_WITH_A_SHAPE = {
    "scalar": lambda y, p: ops.mean(ops.square(y - p)),
    "sum": lambda y, p: ops.sum(ops.square(y - p)),
    "[B, 2]": lambda y, p: ops.square(y - p),
    "[B·2]": lambda y, p: ops.reshape(ops.square(y - p), (-1,)),
}


@each_engine
@pytest.mark.parametrize("loss", LOSSES_WITH_A_SHAPE.values(), ids=list(LOSSES_WITH_A_SHAPE))
def test_losses_of_any_shape_add_up(loss, engine):
    model, batch = _dense(loss), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    expected = oracle.batch_gradient(model, *batch)
    g = pg.per_sample_gradients(model, *batch, engine=engine)
    found = [np.asarray(m + r) for m, r in zip(g.mean(), g.batch_term, strict=True)]
    expect_exact(found, expected)


@each_engine
def test_a_loss_over_several_samples_is_refused(engine):
    model = _dense(lambda y, p: ops.square(ops.mean(y - p)))
    with pytest.raises(pg.PerGradError, match=r"contribution|neither"):
        batch = floats(4, 3, seed=1), floats(4, 2, seed=2)
        pg.per_sample_gradients(model, *batch, engine=engine).mean()
