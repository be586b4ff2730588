"""The tolerance is that of what computes: layers, losses, and operations that go their own way."""

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.cases import set_dtype
from tests.problems import compiled, floats

slow = pytest.mark.slow


def test_a_loss_in_float32_on_layers_in_float64():
    """Keras computes a loss in `floatx`, whatever the policy of the layers."""
    keras.config.set_dtype_policy("float64")
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    report = pg.check_equivalence(model, floats(7, 3), floats(7, 2))
    assert report.tolerance.dtype == "float32" and report.equivalent
    assert report.mean.error > 1e-10  # or else this shows nothing


class Low(layers.Layer):
    """A product in a coarser dtype than the layer's."""

    def __init__(self, dtype_of_product, **options):
        super().__init__(**options)
        self.dtype_of_product = dtype_of_product

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, inputs):
        operands = (tf.cast(each, self.dtype_of_product) for each in (inputs, self.kernel))
        return tf.cast(tf.matmul(*operands), inputs.dtype)


def _bilinear() -> tuple:
    resize = layers.UpSampling2D(interpolation="bilinear")
    return [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), resize, layers.Conv2D(1, 1)], (5, 4, 4, 1)


def _low(dtype) -> tuple:
    return [keras.Input((5,)), layers.Dense(5, "tanh"), Low(dtype), layers.Dense(2)], (32, 2)


@pytest.mark.parametrize(
    ("make", "policy", "dtype"),
    [
        (_bilinear, "float64", "float32"),
        pytest.param(lambda: _low("float32"), "float64", "float32", marks=slow),
        (lambda: _low("bfloat16"), "float32", "bfloat16"),
        pytest.param(lambda: _low("float16"), "float32", "float16", marks=slow),
    ],
    ids=["bilinear", "float32", "bfloat16", "float16"],
)
def test_an_operation_coarser_than_its_layer_sets_the_tolerance(make, policy, dtype):
    set_dtype(policy)
    stack, of_y = make()
    x, y = floats(of_y[0], *stack[0].shape[1:], seed=1), floats(*of_y, seed=2)
    model = compiled(pg.PerGradSequential(stack))
    report = pg.check_equivalence(model, x, y)
    assert report.equivalent and report.tolerance.dtype == dtype, str(report)
    model.compile("sgd", "mse", per_sample=True)
    model.fit(x, y, batch_size=32, verbose=0)
    assert model.equivalence_report.tolerance.dtype == dtype


def _eager_report(check) -> pg.EquivalenceReport:
    stack, of_y = _bilinear()
    model, record = pg.PerGradSequential(stack), pg.PerSample(check=check, on_failure="record")
    model.compile("sgd", "mse", per_sample=record, run_eagerly=True)
    model.train_on_batch(floats(5, 4, 4, 1, seed=1), floats(*of_y, seed=2))
    return model.equivalence_report


@pytest.mark.usefixtures("float64")
def test_where_no_graph_shows_the_operation_the_batch_is_run_again():
    report = _eager_report("first")
    assert report.equivalent and report.tolerance.dtype == "float32" and report.step == 0


@pytest.mark.usefixtures("float64")
def test_where_no_graph_shows_the_operation_it_is_suspected():
    report = _eager_report(pg.EquivalenceCheck(on_failure="record", rtol=1e-10))
    assert not report.equivalent and "ask for rtol=1e-5" in str(report)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_reason_names_the_dtype(dtype):
    tolerance = pg.equivalence.Tolerance.of(dtype)
    assert dtype in tolerance.because
    assert 1 < tolerance.rtol / pg.equivalence._tolerance._EPSILON[dtype] < 1e6


class Watches(layers.Layer):
    """Keeps a mean in a coarser dtype, which no loss is made of."""

    def __init__(self, dtype_of_mean, **options):
        super().__init__(**options)
        self.dtype_of_mean = dtype_of_mean

    def build(self, shape):
        self.mean = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, inputs):
        mean = tf.reduce_mean(tf.cast(inputs, self.dtype_of_mean))
        self.mean.assign(tf.cast(mean, self.mean.dtype))
        return inputs


@pytest.mark.parametrize(
    ("policy", "make", "loss"),
    [
        pytest.param("float32", lambda: Watches("bfloat16"), "mse", marks=slow),
        ("float64", lambda: Watches("float32"), "mse"),
        ("float64", lambda: layers.Dropout(0.3), "log_cosh"),  # it takes a logarithm of a constant
        pytest.param("float64", lambda: layers.GaussianNoise(0.3), "huber", marks=slow),
        ("float64", lambda: layers.LayerNormalization(), "cosine_similarity"),
    ],
)
def test_what_no_loss_is_made_of_leaves_the_tolerance_alone(policy, make, loss):
    set_dtype(policy)
    model = pg.PerGradSequential([keras.Input((3,)), make(), layers.Dense(2)])
    model.compile("sgd", loss, per_sample=True)
    batch = floats(8, 3, seed=1), floats(8, 2, seed=2)
    model.fit(*batch, batch_size=8, verbose=0)
    by_hand = pg.check_equivalence(model, *batch)
    for report in (model.equivalence_report, by_hand):
        assert report.equivalent and report.tolerance.dtype == policy
