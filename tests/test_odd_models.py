"""Operations that are hard to vectorize or to differentiate: exact, or refused in our words."""

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import each_engine, expect_exact, materialized


class Scaled(layers.Layer):
    """Calls a function of the inputs and one weight."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return self.function(inputs * self.scale)

    def compute_output_shape(self, shape):
        return shape


def _python_function(values):
    result = tf.py_function(lambda v: v * 2, [values], values.dtype)
    return tf.ensure_shape(result, values.shape)


@tf.custom_gradient
def _custom_gradient(values):
    return tf.tanh(values), lambda upstream: 3.0 * upstream


def _while_loop(values):
    """Doubles until the first entry exceeds 2: another number of turns for every sample."""

    def turn(row):
        start = row[0] + 0.0
        return tf.while_loop(
            lambda v: tf.logical_and(tf.abs(v[0]) < 2.0, tf.abs(start) > 0.0),
            lambda v: (2.0 * v,),
            (row,),
            maximum_iterations=8,
        )[0]

    return tf.map_fn(turn, values)


def _branch(values):
    """Another branch for every sample."""
    return tf.map_fn(lambda r: tf.cond(r[0] > 0, lambda: tf.sin(r), lambda: r * r), values)


def _sorted(values):
    return ops.sort(values, axis=-1)


def _solved(values):
    matrix = ops.expand_dims(values, -1) * ops.expand_dims(values, -2)
    return ops.squeeze(ops.solve(matrix + 3.0 * ops.eye(3), ops.expand_dims(values, -1)), -1)


def _of(function):
    def build() -> keras.Model:
        chain = [keras.Input((3,)), layers.Dense(3), Scaled(function), layers.Dense(2)]
        return compiled(keras.Sequential(chain))

    return build


def _rematerialized() -> keras.Model:
    with keras.RematScope(mode="full"):
        chain = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
        return compiled(keras.Sequential(chain))


class GradientPenalty(keras.Sequential):
    """Penalizes the gradient of the outputs with respect to the inputs: a double backward."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = self(x, training=training)
        slope = tape.gradient(outputs, x)
        return ops.mean(ops.square(outputs - y)) + ops.mean(ops.sum(ops.square(slope), axis=-1))


def _penalized() -> keras.Model:
    chain = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    return compiled(GradientPenalty(chain), None)


class LateWeights(keras.Model):
    """Makes its layers in `build`, one of them unused."""

    def build(self, shape):
        self.used, self.unused = layers.Dense(2), layers.Dense(3, name="unused")
        self.used.build(shape)
        self.unused.build(shape)

    def call(self, inputs):
        return self.used(inputs)


def _late() -> keras.Model:
    model = compiled(LateWeights())
    model.build((None, 3))
    return model


MODELS = {
    "python_function": _of(_python_function),
    "custom_gradient": _of(_custom_gradient),
    "while_loop": _of(_while_loop),
    "branch": _of(_branch),
    "sort": _of(_sorted),
    "linear_solve": _of(_solved),
    "stop_gradient": _of(ops.stop_gradient),
    "rematerialized": _rematerialized,
    "gradient_penalty": _penalized,
    "unused_layer": _late,
}
# What cannot be stacked; everything else has to be exact. An engine that learns one leaves the set.
REFUSED = {
    ("python_function", "vectorized"),
    ("python_function", "jacobian"),
    ("while_loop", "vectorized"),
    ("branch", "vectorized"),
}


@pytest.mark.thinned(3)
@each_engine
@pytest.mark.parametrize("name", MODELS)
def test_exact_or_refused(name, engine):
    model, batch = MODELS[name](), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    if (name, engine) in REFUSED:
        with pytest.raises(pg.UnsupportedError, match=r"engine='loop'.*Received"):
            pg.per_sample_gradients(model, *batch, engine=engine, of="own").materialize()
        return
    expected = oracle.own_gradients(model, *batch)
    expect_exact(materialized(model, *batch, engine=engine, of="own"), expected)
