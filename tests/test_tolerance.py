"""The tolerance is that of what computes: layers, losses, and operations that go their own way."""

import keras
import pytest
from keras import layers

import keras_pergrad as pg
from tests.problems import compiled, floats


def test_a_loss_in_float32_on_layers_in_float64():
    """Keras computes a loss in `floatx`, whatever the policy of the layers."""
    keras.config.set_dtype_policy("float64")
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    report = pg.check_equivalence(model, floats(7, 3), floats(7, 2))
    assert report.tolerance.dtype == "float32" and report.equivalent
    assert report.mean.error > 1e-10  # or else this shows nothing


@pytest.mark.usefixtures("float64")
def test_an_operation_in_float32_within_float64_is_suspected():
    resize = layers.UpSampling2D(interpolation="bilinear")
    stack = [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), resize, layers.Conv2D(1, 1)]
    model = compiled(keras.Sequential(stack))
    batch = floats(5, 4, 4, 1, seed=1), floats(5, 4, 4, 1, seed=2)
    report = pg.check_equivalence(model, *batch)
    assert not report.equivalent and "ask for rtol=1e-5" in str(report)
    assert pg.check_equivalence(model, *batch, rtol=1e-5).equivalent


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_reason_names_the_dtype(dtype):
    tolerance = pg.equivalence.Tolerance.of(dtype)
    assert dtype in tolerance.because
    assert 1 < tolerance.rtol / pg.equivalence._tolerance._EPSILON[dtype] < 1e6
