"""Two replicas: what has no linear loss, an uneven last batch and noise, against plain Keras."""

import pytest

from tests.processes import run_code

pytestmark = pytest.mark.subprocess

COMMON = """
import keras, numpy as np, tensorflow as tf
from keras import layers, ops
import keras_pergrad as pg
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
tf.config.experimental.enable_op_determinism()
keras.config.set_floatx("float64")
rng = np.random.default_rng(0)
# 13 rows: a batch of 4 and 4, and a last one of 3 and 2.
x, y = rng.normal(size=(13, 3)), rng.normal(size=(13, 2))

def chain():
    noise = [layers.Dropout(0.5), layers.GaussianNoise(0.2)]
    return [keras.Input((3,)), layers.Dense(4, "tanh"), *noise, layers.Dense(2)]

def fitted(make, loss, per_sample):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = make()
        start = model.get_weights()
        options = {"per_sample": per_sample} if isinstance(model, pg.PerGradMixin) else {}
        model.compile(keras.optimizers.SGD(0.1), loss, metrics=["mae"], **options)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    moved = [np.abs(a - b).max() for a, b in zip(start, model.get_weights())]
    assert min(moved) > 1e-4, moved
    return model, history

def compare(plain, measured, loss=None):
    kept, history = fitted(plain, loss, None)
    same, same_history = fitted(measured, loss, pg.PerSample(check="always"))
    assert history == same_history, (history, same_history)
    for a, b in zip(kept.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert same.equivalence_report.equivalent
    assert same.equivalence_report.max_relative_error < 1e-12
    mean, _ = fitted(measured, loss, pg.PerSample(check="off", aggregator="mean"))
    for a, b in zip(kept.get_weights(), mean.get_weights(), strict=True):
        # float64, four steps: rounding of another order of sums.
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
"""
COMPUTE_LOSS = """
class OwnLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.sum(ops.square(y_pred - y), axis=-1))

class Measured(pg.PerGradMixin, OwnLoss):
    pass

compare(lambda: OwnLoss(chain()), lambda: Measured(chain()))
"""
SCALAR_LOSS = """
def scalar(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))

compare(lambda: keras.Sequential(chain()), lambda: pg.PerGradSequential(chain()), scalar)
"""
NAMED_LOSS = """
compare(lambda: keras.Sequential(chain()), lambda: pg.PerGradSequential(chain()), "mse")
"""


@pytest.mark.parametrize(
    "models",
    [
        pytest.param(COMPUTE_LOSS + SCALAR_LOSS, id="compute_loss_and_scalar_loss_function"),
        pytest.param(NAMED_LOSS, id="named_loss", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_train_as_plain_keras_under_the_same_strategy(models):
    """Dropout and noise are in each, so that both replicas have draws of their own."""
    result = run_code(COMMON + models)
    assert result.returncode == 0, result.stderr[-3000:]
