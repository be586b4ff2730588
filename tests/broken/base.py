"""What a planted model is, and what they are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tests.problems import compiled, floats

SIZE = 12


@dataclass(frozen=True)
class Broken:
    """A model, a batch, the planted causes, kind and a part of the place; an engine that can.

    And a relative tolerance, where float64 would decide otherwise.
    """

    build: Callable[[], keras.Model]
    batch: Callable[[], tuple]
    causes: tuple[tuple[str, str], ...]
    engine: str = "vectorized"
    rtol: float | None = None


def numbers(*shape: int) -> Callable[[], tuple]:
    """A batch of `[SIZE, *shape]` with two numbers a sample to predict."""
    return lambda: (floats(SIZE, *shape, seed=1), floats(SIZE, 2, seed=2), None)


def chain(shape: tuple[int, ...], *made: Callable[[], Any], loss: Any = "mse"):
    """A functional model of layers that are made anew each time."""

    def build() -> keras.Model:
        hidden = start = keras.Input(shape)
        for make in made:
            hidden = make()(hidden)
        return compiled(keras.Model(start, hidden), loss() if callable(loss) else loss)

    return build


def dense(units: int = 2, **options: Any) -> Callable[[], keras.Layer]:
    return lambda: layers.Dense(units, **options)


class Mixes(keras.Layer):
    """A layer of the user's own that mixes samples by `function`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def mixing(function: Callable) -> Callable:
    """A chain in which a layer of one's own mixes the samples."""
    return chain((5,), dense(4), lambda: Mixes(function, name="mixer"), dense())


class OwnLoss(keras.Model):
    """A dense model whose loss is `function(y, y_pred)`."""

    def __init__(self, function, units=2, **options):
        super().__init__(**options)
        self.dense, self.function = layers.Dense(units), function

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.function(y, y_pred)


def own_loss(function: Callable, units: int = 2) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        model = OwnLoss(function, units)
        model(floats(1, 5))
        return compiled(model, None)

    return build


def _masked_inputs(width: int) -> np.ndarray:
    x = floats(SIZE, 4, width, seed=1)
    for k in range(SIZE):
        x[k, 1 + k % 4 :] = 0
    return x


def masked() -> tuple:
    return _masked_inputs(3), floats(SIZE, 4, 2, seed=2), None


class Penalty(keras.Layer):
    """Gives `function(inputs)` to `add_loss`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function, self.supports_masking = function, True

    def call(self, inputs):
        self.add_loss(self.function(inputs))
        return inputs


def penalized(function: Callable) -> Callable:
    return chain((5,), dense(4), lambda: Penalty(function, name="penalty"), dense())


def images(channels: int) -> Callable[[], tuple]:
    return lambda: (
        np.abs(floats(SIZE, 6, 6, 1, seed=1)),
        np.clip(np.abs(floats(SIZE, 6, 6, channels, seed=2)), 0, 1),
        None,
    )


def segmenting(loss: Callable) -> Callable:
    return chain(
        (6, 6, 1),
        lambda: layers.Conv2D(2, 3, padding="same", activation="sigmoid"),
        loss=loss,
    )


MODEL, LOSS, ADDED = "sample_interaction", "sample_interaction", "summed_add_loss"
NORMAL, SCALE = "loss_normalization", "loss_scale"


def summed() -> keras.losses.Loss:
    return keras.losses.MeanSquaredError(reduction="sum")
