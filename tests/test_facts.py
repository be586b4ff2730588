"""The traps of Keras and TensorFlow: noise, state, losses, graphs, precision. Each one sprung."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from keras_pergrad.runs import trained_variables
from tests import oracle
from tests.cases import make_case
from tests.problems import by_name, compiled, floats
from tests.samples import each_engine, expect_exact, materialized, relative_error


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Counts(layers.Layer):
    """Counts its calls, as a user's own statistics do."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


def _with_state() -> keras.Model:
    chain = [keras.Input((3,)), layers.Dense(4), Counts(), layers.BatchNormalization()]
    model = keras.Sequential([*chain, layers.Dropout(0.3), layers.Dense(2)])
    return compiled(model, metrics=["mae"], weighted_metrics=["mse"])


@pytest.mark.thinned(2)
@each_engine
@pytest.mark.parametrize(
    "graph", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eager", "graph"]
)
def test_nothing_is_written(engine, graph):
    model, batch = _with_state(), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    model.train_on_batch(*batch)

    def mean():
        return pg.per_sample_gradients(model, *batch, engine=engine, of="own").mean()

    with oracle.expect_unchanged(model):
        (tf.function(mean) if graph else mean)()
        pg.check_equivalence(model, *batch)


@each_engine
def test_model_losses_survive(engine):
    name = "regularizer_l2" if engine == "jacobian" else "activity_regularizer"
    case = make_case(by_name(name))
    y_pred = case.model(case.x, training=True)
    before = [float(loss) for loss in case.model.losses]
    total = float(case.model.compute_loss(case.x, case.y, y_pred))
    pg.per_sample_gradients(case.model, *case.batch, engine=engine).mean()
    assert [float(loss) for loss in case.model.losses] == before
    assert float(case.model.compute_loss(case.x, case.y, y_pred)) == total


IN_GRAPHS = ("dense", "dense_on_sequence", "conv2d_groups", "lstm_after_dense", "gru")


@pytest.mark.thinned(3)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", [*IN_GRAPHS, "multi_head_attention", "embedding_repeated_ids"])
def test_the_same_in_a_compiled_function(name, jit_compile):
    """A recurrent layer that is not unrolled is refused by XLA.

    No noise here: compiled by XLA, TensorFlow draws other numbers than the eager oracle.
    """
    case = make_case(by_name(name))

    @tf.function(jit_compile=jit_compile)
    def rows(x, y):
        return list(pg.per_sample_gradients(case.model, x, y).materialize().values())

    found = [g.numpy() for g in rows(tf.constant(case.x), tf.constant(case.y))]
    expected = oracle.contributions_by_weight(case.model, *case.batch)
    expect_exact(found, expected)


def test_grouped_convolution_in_the_jacobian(float64):
    """TensorFlow's own `tape.jacobian` is off by 100 % here."""
    case = make_case(by_name("conv2d_groups"))
    found = materialized(case.model, *case.batch, engine="jacobian")
    expected = oracle.contributions_by_weight(case.model, *case.batch)
    expect_exact(found, expected, "float64")


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d_strides", "conv3d", "lstm"])
def test_the_log_stays_empty(name):
    """TensorFlow announces every operation that it loops over; users would worry."""
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    tf.get_logger().addHandler(handler)
    try:
        case = make_case(by_name(name))
        pg.per_sample_gradients(case.model, *case.batch).mean()
    finally:
        tf.get_logger().removeHandler(handler)
    assert not heard


def test_spectral_normalization_is_differentiated_where_keras_does(float64):
    """Its forward pass assigns the kernel; gradients at the old one are off by 80 %."""
    case = make_case(by_name("spectral_normalization"))
    kernel = case.model.layers[1].layer.kernel.numpy()
    g = pg.per_sample_gradients(case.model, *case.batch)
    found = [np.asarray(m) for m in g.mean()]
    expected = oracle.batch_gradient(case.model, *case.batch)
    expect_exact(found, expected, "float64")
    np.testing.assert_array_equal(case.model.layers[1].layer.kernel.numpy(), kernel)


@each_engine
def test_float8_is_refused_and_its_scales_are_no_weights(engine):
    """The scales are overwritten with their gradient, in a custom gradient that reads a weight."""
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, name="quantized")])
    model.layers[0].quantize("float8")
    compiled(model)
    batch = floats(4, 16, seed=1), floats(4, 16, seed=2)
    with pytest.raises(pg.UnsupportedError, match="custom gradient"):
        pg.per_sample_gradients(model, *batch, engine=engine).mean()
    trained = [variable.path.split("/")[-1] for variable in trained_variables(model)]
    assert trained == ["kernel", "bias"]
    assert len(model.trainable_variables) > 2  # Keras counts the scales


@pytest.mark.parametrize("name", ["transformer", "multi_head_attention"])
def test_gradients_that_are_zero_by_cancellation_raise_no_alarm(name):
    """The bias of an attention's keys has no influence; its gradient is rounding noise."""
    case = make_case(by_name(name))
    report = pg.check_equivalence(case.model, *case.batch)
    assert report.equivalent, str(report)


def test_tiny_gradients_in_float16_do_not_underflow():
    """Gradients of about 1e-8 are zero in float16 unless the loss is scaled before."""
    keras.config.set_dtype_policy("mixed_float16")

    def build(policy):
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(policy)
        chain = [keras.Input((3,)), layers.Dense(8, "tanh"), layers.Dense(2, dtype="float32")]
        return compiled(keras.Sequential(chain), lambda y, p: 1e-7 * ops.square(y - p))

    batch = floats(8, 3, seed=1), floats(8, 2, seed=2)
    half = materialized(build("mixed_float16"), *batch)
    full = materialized(build("float32"), *batch)
    # A float16 has 11 bits; the error of a few operations is below 1 %.
    assert relative_error(half, full) <= 1e-2


def _counted() -> tuple[keras.Model, list]:
    """A model, and a list that grows by one with each run or trace of it in Python.

    The list is nowhere in the model, where it would be put back.
    """
    seen: list = []
    count = layers.Lambda(lambda h: seen.append(h.shape) or h)
    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2), count]))
    seen.clear()
    return model, seen


@pytest.mark.parametrize("engine", ["vectorized", "jacobian"])
def test_neither_chunks_nor_questions_are_traced_anew(engine):
    """`tf.vectorized_map` is traced at each eager call: 90 ms in place of 1."""
    (model, seen), batch = _counted(), (floats(9, 3, seed=1), floats(9, 2, seed=2))
    traces = []
    for budget in (2**30, 1):  # one chunk, and nine
        seen.clear()
        g = pg.per_sample_gradients(model, *batch, engine=engine, of="own", memory_budget=budget)
        for ask in (g.norms, g.mean, g.gram, g.materialize, g.second_moment):
            ask()
        traces.append(len(seen))
    assert "chunks of 1" in g.summary()
    assert traces[0] == traces[1] > 0


@each_engine
def test_a_function_is_traced_once(engine):
    model, seen = _counted()
    norms = tf.function(lambda x, y: pg.per_sample_gradients(model, x, y, engine=engine).norms())
    x, y = tf.constant(floats(4, 3, seed=1)), tf.constant(floats(4, 2, seed=2))
    norms(x, y)
    before = len(seen)
    assert before > 0
    np.testing.assert_array_equal(norms(x + 0, y), norms(x, y))
    assert len(seen) == before
