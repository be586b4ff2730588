"""What a problem is, and a short way to write one that is a plain stack of layers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Batch = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Problem:
    """A compiled model and a batch for it; the dtype is the floatx in force when called.

    Tags say what it is about ("layer", "loss", "kind", "rnn", "noise", "augmentation", "mask"), and

    - "couples": samples interact; "no_decomposition": the loss is no sum over samples;
    - "not_equivalent": the mean of the own gradients is not the batch gradient;
    - "needs_batch": a sample cannot run alone; "writes_state": the forward pass assigns variables;
    - "own_terms": the loss is not linear in the `sample_weight` of the samples;
    - "batch_noise": one draw for all samples;
    - "loop_only": an operation that cannot be vectorized;
    - "scalar_terms": a layer adds a loss that it reduced over the batch;
    - "float32_only": Keras fails in float64; "partly_float32": it keeps to float32 there.
    """

    name: str
    build: Callable[[], keras.Model]
    batch: Callable[[], Batch]
    tags: frozenset[str] = frozenset()
    contribution_weights: Callable[[], np.ndarray] | None = None
    """[B]: contribution gradient = this number × own gradient, in closed form."""


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers of the current floatx."""
    values = np.random.default_rng(seed).normal(size=shape)
    return values.astype(keras.config.floatx())


def whole(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Integers in [0, high)."""
    return np.random.default_rng(seed).integers(0, high, size=shape).astype("int32")


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers in (0.1, 0.9), away from the edges where augmentations clip."""
    values = np.random.default_rng(seed).uniform(0.1, 0.9, size=shape)
    return values.astype(keras.config.floatx())


def compiled(model: keras.Model, loss: Any = "mse", **options: Any) -> keras.Model:
    """The model, compiled with plain SGD."""
    model.compile("sgd", loss, **options)
    return model


def stack(
    name: str,
    shape: tuple[int, ...],
    target: tuple[int, ...],
    make: Callable[[], Iterable[Callable]],
    *,
    tags: Iterable[str] = ("layer",),
    size: int = 4,
    x: Callable[[], np.ndarray] | None = None,
    loss: Any = "mse",
) -> Problem:
    """A functional chain of layers on inputs [size, *shape], regressed on [size, *target].

    `x` replaces the normal inputs; integer inputs make an integer `keras.Input`.
    """

    def inputs() -> np.ndarray:
        return x() if x else floats(size, *shape, seed=1)

    def build() -> keras.Model:
        hidden = start = keras.Input(shape, dtype=inputs().dtype.name)
        for layer in make():
            hidden = layer(hidden)
        return compiled(keras.Model(start, hidden), loss)

    def batch() -> Batch:
        return inputs(), floats(size, *target, seed=2), None

    return Problem(name, build, batch, frozenset(tags))
