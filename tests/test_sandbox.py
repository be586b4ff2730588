"""A run again sees the state that the real run saw, and leaves it alone."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.problems import compiled, floats

ISOLATED = ("loop", "vectorized")


class Counting(layers.Layer):
    """Counts its runs in a variable that Keras does not track."""

    def __init__(self, **options):
        super().__init__(**options)
        self.runs = tf.Variable(0.0, trainable=False)

    def call(self, inputs):
        self.runs.assign_add(1.0)
        return inputs * 1.0


@pytest.mark.parametrize("engine", ISOLATED)
def test_a_layer_that_writes_a_variable_of_tensorflow_is_refused_and_left_alone(engine):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(Counting()(inputs))))
    model.layers[1].runs.assign(5.0)
    with pytest.raises(pg.UnsupportedError, match=r"tf\.Variable"):
        pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine).norms()
    with pytest.raises(pg.UnsupportedError, match=r"tf\.Variable"):
        pg.check_equivalence(model, floats(4, 3), floats(4, 2), engine=engine)
    assert float(model.layers[1].runs) == 5.0


def test_a_check_does_not_create_the_global_seed_or_advance_pythons():
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(ops.shape(inputs))

    def first_draw(check: bool) -> tuple[np.ndarray, float]:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(3)
        keras.src.backend.common.global_state.set_global_attribute("global_seed_generator", None)
        model = keras.Sequential([layers.Dense(3), Noise(), layers.Dense(2)])
        model.build((None, 3))
        model.compile("sgd", "mse")
        if check:
            pg.check_equivalence(model, floats(4, 3), floats(4, 2))
            pg.per_sample_gradients(model, floats(4, 3), floats(4, 2)).norms()
        return keras.ops.convert_to_numpy(keras.random.normal((2,))), random.random()

    plain, checked = first_draw(False), first_draw(True)
    np.testing.assert_array_equal(plain[0], checked[0])
    assert plain[1] == checked[1]


class PastKeras(layers.Layer):
    """Reads the TensorFlow variable behind its weight."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        return tf.matmul(inputs, tf.identity(self.kernel._value))


@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_a_weight_read_past_keras_is_refused(engine):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(PastKeras()(inputs))))
    with pytest.raises(pg.UnsupportedError, match=r"kernel.*past Keras"):
        found = pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine, of="own")
        found.norms()


def test_a_sandbox_that_is_not_training_does_not_break_the_tie():
    """A layer that gives another number in a sandbox: float64 must not acquit it."""

    class Cheating(layers.Layer):
        def call(self, inputs):
            sandboxed = keras.src.backend.in_stateless_scope()
            return inputs * (1.005 if sandboxed else 1.0)

    stack = [keras.Input((3,)), layers.Dense(4), Cheating(), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    assert not pg.check_equivalence(model, floats(4, 3, seed=1), floats(4, 2, seed=2)).equivalent


class MovingAverage(layers.Layer):
    """Assigns a state of its own from the batch, and reads it back into a loss."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.average = self.add_weight(
            shape=(4,), initializer="zeros", trainable=False, name="average"
        )

    def call(self, inputs):
        hidden = ops.matmul(inputs, self.kernel)
        self.average.assign(0.9 * self.average + 0.1 * ops.mean(hidden, axis=0))
        return hidden + 0.0 * ops.sum(self.average) + ops.sum(ops.square(self.average))


def test_no_gradient_flows_through_a_write_of_state():
    """As with a real variable: what is read back after an assignment is a constant."""
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(MovingAverage()(inputs))))
    x, y = floats(1, 3, seed=1), floats(1, 2, seed=2)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), None)
    real = tape.gradient(loss, model.trainable_variables)
    model.layers[1].average.assign(ops.zeros(4))
    found = pg.per_sample_gradients(model, x, y, of="own").mean()
    for one, other in zip(found, real, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Auxiliary(keras.Model):
    """A head that only training runs, unbuilt after a plain call."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.extra = layers.Dense(4), layers.Dense(2), layers.Dense(1)

    def call(self, inputs, training=None):
        hidden = self.body(inputs)
        if training:
            self.add_loss(ops.mean(ops.square(self.extra(hidden)), axis=1))
        return self.head(hidden)


def test_a_layer_that_only_training_runs():
    model, x, y = Auxiliary(), floats(4, 3, seed=1), floats(4, 2, seed=2)
    with pytest.warns(UserWarning, match="unbuilt state"):  # Keras', of the very thing
        model(x)
    model.compile("sgd", "mse")
    assert len(pg.per_sample_gradients(model, x, y).variables) == 6
    model.fit(x, y, verbose=0)
    measured = type("Measured", (pg.PerGradMixin, Auxiliary), {})()
    with pytest.warns(UserWarning, match="unbuilt state"):
        measured(x)
    measured.compile("sgd", "mse", per_sample=pg.PerSample(check="always", on_failure="record"))
    measured.fit(x, y, verbose=0)
    assert measured.equivalence_report.oracle.passed
