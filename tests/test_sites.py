"""Where weights meet samples: which entries are a sample's, and whether samples meet each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.cases import make_case
from tests.problems import by_name, by_tag, compiled, floats

X, Y = floats(4, 6, 2, seed=1), floats(4, 6, 2, seed=2)


def _held(model, x, y) -> dict:
    g = pg.per_sample_gradients(model, x, y, engine="factored")
    return dict(zip(g.variables, g.blocks.held, strict=True))


def _sequence_model(function) -> keras.Model:
    start = keras.Input((6, 2))
    return compiled(keras.Model(start, function(start)))


MERGED = {
    "samples outside": lambda h: ops.reshape(layers.Dense(2)(ops.reshape(h, (-1, 2))), (-1, 6, 2)),
    "time major": lambda h: ops.transpose(layers.Dense(2)(ops.transpose(h, (1, 0, 2))), (1, 0, 2)),
    "time major, flattened": lambda h: ops.transpose(
        ops.reshape(layers.Dense(2)(ops.reshape(ops.transpose(h, (1, 0, 2)), (-1, 2))), (6, -1, 2)),
        (1, 0, 2),
    ),
    "space to batch": lambda h: layers.Conv1D(2, 2, padding="same", dilation_rate=2)(h),
    "heads before samples": lambda h: layers.MultiHeadAttention(2, 2)(h, h),
}


@pytest.mark.parametrize("function", MERGED.values(), ids=list(MERGED))
def test_samples_that_share_an_axis_are_told_apart(function):
    model = _sequence_model(function)
    assert not any(held.because for held in _held(model, X, Y).values())
    expected = oracle.contributions_by_weight(model, X, Y)
    found = pg.per_sample_gradients(model, X, Y, engine="factored").materialize().values()
    # float32: a hundred roundings.
    error = oracle.largest_difference([np.asarray(f) for f in found], expected)
    assert error <= 1e-5 * oracle.global_norm(expected)


@pytest.mark.parametrize("problem", by_tag("couples"), ids=lambda problem: problem.name)
def test_interaction_is_named_with_its_place(problem):
    case = make_case(problem)
    g = pg.per_sample_gradients(case.model, *case.batch, engine="factored")
    assert "samples interact" in "".join(g.remarks) and "shares" in g.summary()
    place = "circle" if problem.name == "circle" else "batch_normalization"
    assert place in "".join(g.remarks)


CLEAN = ("transformer", "lstm", "conv2d", "layer_normalization", "mask", "embedding_mask_zero")


@pytest.mark.parametrize("name", [*CLEAN, "group_normalization", "ignore_class"])
def test_no_interaction_is_seen_where_there_is_none(name):
    """The denominator of a mask depends on all samples, and on no weight."""
    case = make_case(by_name(name))
    assert not pg.per_sample_gradients(case.model, *case.batch, engine="factored").remarks


class Temperature(keras.Model):
    """A learned temperature: one weight that meets only the loss of all samples."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self.heat = self.add_weight(shape=(), initializer="ones", name="heat")

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) * ops.exp(-self.heat)


def test_a_weight_behind_the_sum_over_samples_is_written_out():
    model = Temperature()
    model(X)
    held = _held(compiled(model, None), X, Y)
    assert "after they were summed" in held[model.heat.path].because
    expected = oracle.own_gradients(model, X, Y)  # a mean: contributions are own gradients
    found = pg.per_sample_gradients(model, X, Y, engine="factored").materialize().values()
    error = oracle.largest_difference([np.asarray(f) for f in found], expected)
    assert error <= 1e-5 * oracle.global_norm(expected)


FALLBACKS = {"conv3d_groups": "PartitionedCall", "spectral_normalization": "assigns it"}


@pytest.mark.parametrize(("name", "because"), FALLBACKS.items())
def test_a_fallback_names_its_reason(name, because):
    case = make_case(by_name(name))
    g = pg.per_sample_gradients(case.model, *case.batch, engine="factored")
    reasons = [held.because for held in g.blocks.held if held.because]
    assert reasons and all(because in reason for reason in reasons)
    assert "not factored" in g.summary()


class Compiled(layers.Layer):
    """A convolution along a sequence, in two groups, in a compiled function of one's own."""

    def __init__(self, axis, strides, dilations):
        super().__init__()
        self.axis, self.options = axis, {"strides": strides, "dilations": dilations}

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 1, 2))

    def call(self, inputs):
        convolve = tf.function(self._convolve, jit_compile=True, autograph=False)
        return convolve(inputs, tf.convert_to_tensor(self.kernel))

    def _convolve(self, inputs, kernel):
        image, filters = tf.expand_dims(inputs, self.axis), tf.expand_dims(kernel, self.axis - 1)
        return tf.squeeze(tf.nn.conv2d(image, filters, padding="SAME", **self.options), self.axis)


@pytest.mark.filterwarnings("ignore:.*retracing")
@pytest.mark.parametrize(
    ("axis", "strides", "dilations", "read"),
    [
        (1, (1, 2), (1, 1), True),
        (2, (2, 1), (1, 1), False),  # the added axis is the other one
        (2, (1, 1), (2, 1), False),
    ],
)
def test_a_compiled_convolution_is_read_if_it_is_of_the_known_kind(axis, strides, dilations, read):
    model = _sequence_model(Compiled(axis, strides, dilations))
    y = np.zeros(model.output.shape[1:], "float32")[None].repeat(len(X), axis=0)
    g = pg.per_sample_gradients(model, X, y, engine="factored")
    assert all(not held.because for held in g.blocks.held) is read
    expected = oracle.own_gradients(model, X, y)
    found = [np.asarray(value) for value in g.materialize().values()]
    assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)


OPERATIONS = {
    "dense": {"MatMul", "BiasAdd"},
    "conv2d": {"Conv2D", "BiasAdd"},
    "conv2d_groups_strides_same": {"PartitionedCall", "BiasAdd"},
    "embedding": {"GatherV2", "MatMul", "BiasAdd"},
    "layer_normalization": {"Mul", "AddV2"},
    "depthwise_conv2d": {"DepthwiseConv2dNative", "BiasAdd"},
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_summary_names_the_operations(name):
    case = make_case(by_name(name))
    g = pg.per_sample_gradients(case.model, *case.batch, engine="factored")
    found = {operation for held in g.blocks.held for operation in held.operations}
    assert OPERATIONS[name] <= found
    assert all(operation in g.summary() for operation in OPERATIONS[name])


class SumOfGroups(keras.Model):
    """A sum over the batch by hand, and a layer that is not factored: two numbers of samples."""

    def __init__(self):
        super().__init__()
        self.grouped, self.flat = layers.Conv1D(2, 2, groups=2), layers.Flatten()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.flat(self.grouped(inputs)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(y[:, 0] - y_pred))


def test_a_fallback_beside_a_loss_of_the_models_own_has_the_same_factor():
    """Written out, a sample's gradient is B times smaller than its contribution to a sum."""
    model = SumOfGroups()
    model(X)
    g = pg.per_sample_gradients(compiled(model, None), X, Y, engine="factored")
    found = [np.asarray(value) for value in g.materialize().values()]
    expected = [len(X) * rows for rows in oracle.own_gradients(model, X, Y)]
    error = oracle.largest_difference(found, expected)
    assert error <= 1e-5 * oracle.global_norm(expected)
