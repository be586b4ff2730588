"""What only a coarse dtype does: overflow, underflow, and rounding."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from tests.broken.base import NORMAL, Broken, numbers, own_loss, summed
from tests.problems import floats

HALF = "mixed_float16"
PRECISION = "precision"


def half(optimizer: Any = "sgd", loss: Any = "mse", times: float = 1.0) -> Callable:
    """A model in float16 whose loss counts `times`."""

    def build() -> keras.Model:
        start = keras.Input((5,))
        first, second = (keras.initializers.GlorotUniform(seed) for seed in (1, 2))
        hidden = layers.Dense(4, dtype=HALF, kernel_initializer=first, name="first")(start)
        output = layers.Dense(2, dtype=HALF, kernel_initializer=second)(hidden)
        model = keras.Model(start, output)
        made = [each() if callable(each) else each for each in (optimizer, loss)]
        model.compile(*made, loss_weights=times, auto_scale_loss=False)
        return model

    return build


def scaled_by(scale: float) -> Callable:
    return lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=scale)


def large() -> tuple:
    x, y, _ = numbers(5)()
    return x * 6e4, y, None


def cancelling(y, y_pred):
    """Rounds more in a batch than for a sample alone; in float64 neither does."""
    offset = 1e4 * ops.cast(ops.shape(y_pred)[0], y_pred.dtype)
    return ops.mean((y - ((y_pred + offset) - offset)) ** 2)


ROUNDING: dict[str, Broken] = {
    "overflows in the backward pass": Broken(
        half(times=1e6), numbers(5), ((PRECISION, "float16"),)
    ),
    "overflows by the loss scale": Broken(
        half(scaled_by(2.0**24)), numbers(5), ((PRECISION, "float16"),)
    ),
    "overflows as a sum": Broken(
        half(loss=summed, times=2e4),
        numbers(5),
        ((PRECISION, "float16"), (NORMAL, "mean_squared_error")),
    ),
    "overflows in a layer": Broken(half(), large, ((PRECISION, "first"),)),
    "underflows": Broken(
        half(times=7e-7), numbers(5), ((PRECISION, "float16"),), engine="loop", rtol=1e-3
    ),
    "cancels in float32": Broken(
        own_loss(cancelling), numbers(5), ((PRECISION, "float32"),), rtol=1e-5
    ),
    "less was asked for than float32 can": Broken(
        own_loss(lambda y, p: ops.mean((y - p) ** 2)),
        lambda: (floats(12, 5, seed=1), floats(12, 2, seed=2), None),
        ((PRECISION, "float32"),),
        rtol=1e-12,
    ),
}
