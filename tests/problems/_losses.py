"""What problems of losses are made of: models, batches and weights."""

import keras
import numpy as np
from keras import layers

from tests.problems._base import Problem, compiled, floats

B, T = 4, 3


def loss_problem(name, model, batch, *tags, ratio=None, loss="mse", **options) -> Problem:
    """`ratio`: contribution gradient / own gradient, a number or [B] numbers, if there is one."""

    def build() -> keras.Model:
        made = loss() if callable(loss) and not isinstance(loss, str) else loss
        return compiled(model(), made, **options)

    weights = None if ratio is None else (lambda: np.broadcast_to(ratio, (B,)))
    return Problem(name, build, batch, frozenset({"loss", *tags}), weights)


def vectors() -> keras.Model:
    """[B, 3] → [B, 2]."""
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(2)(layers.Dense(4, "tanh")(start)))


def sequences() -> keras.Model:
    """[B, T, 2] → [B, T, 2]."""
    start = keras.Input((T, 2))
    return keras.Model(start, layers.Dense(2)(layers.Dense(3, "tanh")(start)))


def x_y():
    """A batch for `vectors`."""
    return floats(B, 3, seed=1), floats(B, 2, seed=2), None


def weighted(*weights):
    """The same with sample weights."""
    return lambda: (*x_y()[:2], np.asarray(weights, keras.config.floatx()))


def sequence(weights=None):
    """A batch for `sequences`, with weights or without."""

    def batch():
        made = None if weights is None else np.asarray(weights, keras.config.floatx())
        return floats(B, T, 2, seed=1), floats(B, T, 2, seed=2), made

    return batch


PADDED = np.array([[1, 0, 0], [2, 3, 0], [4, 5, 1], [3, 0, 0]], "int32")
KEPT = (PADDED != 0).sum(axis=1)
S = np.array([0.5, 2.0, 1.0, 3.0])


def padded(weights=None):
    """Words of which zeros are masked, and targets [B, T, 2]."""

    def batch():
        made = None if weights is None else np.asarray(weights, keras.config.floatx())
        return PADDED, floats(B, T, 2, seed=2), made

    return batch
