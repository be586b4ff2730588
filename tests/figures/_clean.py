"""Clean models of the kind that causes are taken for: half precision, and masks."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from tests.problems import Problem, compiled, floats, whole

SIZE = 8


def _half(policy: str, optimizer: Callable[[], Any]) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        start = keras.Input((5,))
        hidden = layers.Dense(8, "gelu", dtype=policy)(start)
        hidden = layers.LayerNormalization(dtype=policy)(hidden)
        model = keras.Model(start, layers.Dense(2, dtype="float32")(hidden))
        model.compile(optimizer(), "mse")
        return model

    return build


def _scaled() -> keras.Optimizer:
    """With a scale as it becomes in training: the first ones overflow, and are halved."""
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**8)


def _embedded() -> keras.Model:
    """A mask that a recurrent layer takes up, so that the loss divides by no entries of it."""
    start = keras.Input((4,), dtype="int32")
    hidden = layers.LSTM(3)(layers.Embedding(6, 3, mask_zero=True)(start))
    return compiled(keras.Model(start, layers.Dense(2)(hidden)))


def _attending() -> keras.Model:
    start = keras.Input((4, 3))
    hidden = layers.Masking()(start)
    hidden = layers.MultiHeadAttention(2, 2)(hidden, hidden)
    return compiled(keras.Model(start, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden))))


def _even_mask() -> keras.Model:
    """A mask in the loss that leaves as many entries of each sample: every sample counts alike."""
    start = keras.Input((4, 3))
    return compiled(keras.Model(start, layers.Dense(2)(layers.Masking()(start))))


def _padded(even: bool) -> np.ndarray:
    x = floats(SIZE, 4, 3, seed=1)
    for k in range(SIZE):
        x[k, 2 if even else 1 + k % 3 :] = 0
    return x


def _ids() -> np.ndarray:
    ids = 1 + whole(5, SIZE, 4, seed=1)
    return np.where(np.arange(4) < 1 + np.arange(SIZE)[:, None] % 4, ids, 0)


def _problem(name: str, build: Callable[[], keras.Model], x: Callable, *shape: int) -> Problem:
    return Problem(name, build, lambda: (x(), floats(SIZE, *shape, 2, seed=2), None), frozenset())


CLEAN = (
    _problem(
        "mixed_bfloat16",
        _half("mixed_bfloat16", keras.optimizers.SGD),
        lambda: floats(SIZE, 5, seed=1),
    ),
    _problem("mixed_float16", _half("mixed_float16", _scaled), lambda: floats(SIZE, 5, seed=1)),
    _problem("mask of an embedding", _embedded, _ids),
    _problem("mask of attention", _attending, lambda: _padded(even=False)),
    _problem("even mask", _even_mask, lambda: _padded(even=True), 4),
)
