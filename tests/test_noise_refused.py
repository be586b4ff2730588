"""Noise of which a sample's part cannot be told is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.problems import compiled, floats

ISOLATED = ("loop", "vectorized")


class Drawing(layers.Layer):
    """Multiplies by noise from `draw(layer, shape)`."""

    def __init__(self, draw, **options):
        super().__init__(**options)
        self.draw = draw
        self.generator = tf.random.Generator.from_seed(1)
        self.seeds = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return inputs * self.draw(self, ops.shape(inputs)) + self.mean

    def compute_output_shape(self, shape):
        return shape


def _raw(layer, shape):
    return tf.raw_ops.RandomStandardNormal(shape=shape, dtype=tf.float32, seed=1, seed2=2)


def _generator(layer, shape):
    return layer.generator.normal(shape)


def _shuffled(layer, shape):
    return tf.random.shuffle(tf.ones(shape))


def _parameterized(layer, shape):
    seed = tf.cast(layer.seeds.next(), tf.int32)
    one = tf.ones(())
    return tf.random.stateless_parameterized_truncated_normal(
        shape, seed, tf.convert_to_tensor(layer.mean), one, -one, one
    )


@pytest.mark.parametrize("draw", [_raw, _generator, _shuffled, _parameterized])
@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_noise_that_cannot_be_replayed_is_refused(engine, draw):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(Drawing(draw)(inputs))))
    layer = model.layers[1]
    state = layer.generator.state.numpy().copy()
    with pytest.raises(pg.UnsupportedError):
        found = pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine, of="own")
        found.norms()
    np.testing.assert_array_equal(layer.generator.state.numpy(), state)


@pytest.mark.parametrize("shape", [(-1, 4), (3, -1, 4)])
@pytest.mark.parametrize("engine", ISOLATED)
def test_noise_with_samples_and_positions_in_one_axis_is_refused(engine, shape):
    start = keras.Input((3, 2))
    hidden = layers.Dense(4)(start)
    if len(shape) == 3:
        hidden = ops.transpose(hidden, (1, 0, 2))  # time-major
    hidden = layers.Dropout(0.5, seed=1)(ops.reshape(hidden, (-1, 4)))
    model = keras.Model(start, ops.reshape(hidden, (-1, 3, 4)))
    model.compile("sgd", "mse")
    with pytest.raises(pg.UnsupportedError, match="merged into one axis"):
        found = pg.per_sample_gradients(
            model, floats(5, 3, 2), floats(5, 3, 4), engine=engine, of="own"
        )
        found.norms()
