"""Axes counted from the end, samples on another axis than the first, sums beyond half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import floats
from tests.samples import expect_exact


@pytest.mark.parametrize("axis", [-1, 1, (-1, -2)])
@pytest.mark.parametrize("engine", ("vectorized", "jacobian"))
def test_rolling_along_an_axis_counted_from_the_end(engine, axis):
    start = keras.Input((3, 4))
    shift = 1 if isinstance(axis, int) else (1, 2)
    rolled = layers.Lambda(lambda v: tf.roll(v, shift, axis))(layers.Dense(4)(start))
    model = keras.Model(start, layers.Dense(2)(rolled))
    model.compile("sgd", "mse")
    x, y = floats(4, 3, 4, seed=1), floats(4, 3, 2, seed=2)
    found = pg.per_sample_gradients(model, x, y, engine=engine, of="own").materialize()
    expected = pg.per_sample_gradients(model, x, y, engine="loop", of="own").materialize()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6)


def test_jacobian_wants_samples_on_the_first_axis_of_its_outputs():
    start = keras.Input((3, 2))
    model = keras.Model(start, ops.transpose(layers.Dense(2)(start), (1, 0, 2)))
    model.compile("sgd", lambda y, p: ops.mean(ops.square(ops.transpose(p, (1, 0, 2)) - y)))
    with pytest.raises(pg.UnsupportedError, match="first axis"):
        pg.per_sample_gradients(
            model, floats(5, 3, 2), floats(5, 3, 2), engine="jacobian", of="own"
        ).norms()


def test_one_sample_where_more_might_come():
    """Keras squeezes what an LSTM adds to its gates; of one sample, stacking lost its axis too.

    So `fit` stopped at a last batch of one sample, of a size that is not known while tracing.
    """
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(3)])
    model.compile("sgd", "mse")

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 2)), tf.TensorSpec((None, 3))])
    def rows(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="vectorized", of="own")
        return list(g.materialize().values())

    x, y = floats(3, 3, 2, seed=1), floats(3, 3, seed=2)
    expected = oracle.own_gradients(model, x, y)
    for size in (1, 3):
        found = [np.asarray(row) for row in rows(x[:size], y[:size])]
        expect_exact(found, [row[:size] for row in expected])


def test_norms_of_half_precision_gradients_are_accumulated_in_single():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(64, dtype="float16")])
    model.compile("sgd", "mse")
    x, y = 40 * floats(4, 3, seed=1), 900 * floats(4, 64, seed=2)
    found = pg.per_sample_gradients(model, x, y, engine="vectorized", of="own")
    rows = [np.asarray(v, "float64").reshape(4, -1) for v in found.materialize().values()]
    expected = np.linalg.norm(np.concatenate(rows, axis=1), axis=1)
    assert expected.max() > 256  # its square is beyond float16
    np.testing.assert_allclose(found.norms(), expected, rtol=1e-5)
