"""What a run leaves behind: nothing; and what it must not remember."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import each_engine


class Remembering(layers.Layer):
    """A layer whose `call` is a `tf.function`: it keeps its trace."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    @tf.function
    def call(self, inputs):
        return tf.tanh(tf.matmul(inputs, tf.convert_to_tensor(self.kernel)))


class Recomputing(layers.Layer):
    """A weight read inside a custom gradient, where no tensor's gradient gets out."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        inner = tf.recompute_grad(lambda v: tf.tanh(v @ tf.convert_to_tensor(self.kernel)))
        return inner(inputs)


class Keeping(layers.Layer):
    """Stores a tensor of its run, fills a list, and counts in a variable."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.count = self.add_weight(shape=(), name="count", trainable=False)
        self.seen = []

    def call(self, inputs):
        self.last = inputs
        self.seen.append("run")
        self.count.assign_add(1.0)
        self.add_loss(ops.mean(ops.square(inputs)))
        return ops.matmul(inputs, self.kernel)


class Untracked(layers.Layer):
    """Reads a weight that Keras does not see, in a list inside a plain object."""

    def __init__(self, hidden, **options):
        super().__init__(**options)
        self.hidden = hidden

    def call(self, inputs):
        return inputs * self.hidden()


def _model(layer) -> keras.Model:
    inputs = keras.Input((3,))
    return compiled(keras.Model(inputs, layers.Dense(2)(layer(inputs))))


def _batch():
    return floats(4, 3, seed=1), floats(4, 2, seed=2)


@each_engine
def test_a_trace_of_the_users_own_reads_the_sample_run_and_not_later_training(engine):
    model, (x, y) = _model(Remembering()), _batch()
    model(x)  # a trace that reads the real variables exists before
    found = pg.per_sample_gradients(model, x, y, engine=engine)
    mean = [np.asarray(each) for each in found.mean()]
    expected = oracle.batch_gradient(model, x, y, None)
    for one, other in zip(mean, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    before = model(x).numpy()
    model.layers[1].kernel.assign(2 * model.layers[1].kernel)
    assert np.abs(model(x).numpy() - before).max() > 1e-3


@each_engine
def test_a_custom_gradient_that_reads_a_weight_is_refused(engine):
    model, (x, y) = _model(Recomputing()), _batch()
    with pytest.raises(pg.UnsupportedError, match="custom gradient"):
        pg.per_sample_gradients(model, x, y, engine=engine).norms()


def test_rematerialization_changes_nothing():
    x, y = _batch()
    with keras.RematScope(mode="full"):
        model = _model(layers.Dense(4, "tanh"))
        assert pg.check_equivalence(model, x, y).equivalent


@pytest.mark.parametrize("engine", ("loop", "vectorized"))
def test_nothing_stays_on_layers_or_in_variables(engine):
    model, (x, y) = _model(Keeping()), _batch()
    layer = model.layers[1]
    model(x)
    last, losses = layer.last, [float(loss) for loss in model.losses]
    seen = list(layer.seen)
    values = [np.copy(variable.numpy()) for variable in model.variables]
    pg.per_sample_gradients(model, x, y, engine=engine).norms()
    pg.check_equivalence(model, x, y, engine=engine)
    assert layer.last is last
    assert layer.seen == seen
    assert [float(loss) for loss in model.losses] == losses
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_weight_that_the_model_does_not_track_is_named():
    weight = keras.Variable(np.ones(3, "float32"), name="lost")
    model, (x, y) = _model(Untracked(lambda: weight)), _batch()
    with pytest.warns(pg.PerGradWarning, match="'lost'"):
        report = pg.check_equivalence(model, x, y)
    assert any("lost" in path for path in report.unconnected)
    assert "does not track" in str(report)


def test_fit_warns_once_of_a_weight_that_the_model_does_not_track():
    weight = keras.Variable(np.ones(3, "float32"), name="lost")
    inner, (x, y) = _model(Untracked(lambda: weight)), _batch()
    model = pg.PerGradModel(inner.inputs, inner.outputs[0])
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="always"))
    with pytest.warns(pg.PerGradWarning) as caught:
        model.fit(x, y, batch_size=2, epochs=3, verbose=0)
    assert len(caught) == 1 and "'lost'" in str(caught[0].message)
    assert model.equivalence_report.equivalent


def test_an_error_in_the_middle_leaves_the_model_as_it_was():
    model, (x, y) = _model(Keeping()), _batch()
    model(x)
    count = float(model.layers[1].count)
    model.layers[2].call = lambda inputs, **options: 1 / 0
    with pytest.raises(ZeroDivisionError):
        pg.check_equivalence(model, x, y)
    assert float(model.layers[1].count) == count


def test_a_summary_says_what_memory_is_needed():
    model, (x, y) = _model(layers.Dense(4, "tanh")), _batch()
    assert "in what was kept" in pg.per_sample_gradients(model, x, y).summary()
    one = pg.per_sample_gradients(model, x, y, engine="vectorized").summary()
    assert "one chunk" in one and "B=4" in one
    several = pg.per_sample_gradients(model, x, y, engine="vectorized", memory_budget=1).summary()
    assert "chunks of 1" in several


def test_an_optimizer_with_variables_does_not_have_the_step_traced_twice():
    """TensorFlow traces again what has made variables; plain Keras is traced twice by Adam."""
    traced = []

    class Counts(pg.PerGradSequential):
        def train_step(self, data):
            traced.append(data)
            return super().train_step(data)

    model = Counts([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse", per_sample=True)
    model.fit(floats(8, 3, seed=1), floats(8, 2, seed=2), batch_size=4, verbose=0)
    assert len(traced) == 1
