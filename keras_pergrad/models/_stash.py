"""The batch of a step that failed its check, kept for the host to try again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.engines import Engine, Remembered
from keras_pergrad.equivalence import Request
from keras_pergrad.runs import Batch


class Stash:
    """Room for one batch, filled where a step runs and emptied by the host.

    Args:
        batch: one such batch; its sizes may be others later.
    """

    def __init__(self, batch: Batch):
        self._like = batch.map(lambda leaf: leaf.dtype)
        self._full = Remembered(0)
        self._leaves = [Remembered(_nothing(leaf.dtype), None) for leaf in batch.leaves]

    def keep(self, batch: Batch, when: tf.Tensor) -> None:
        """Keeps `batch` if `when`, a scalar bool."""

        def fill() -> tf.Tensor:
            for place, leaf in zip(self._leaves, batch.leaves, strict=True):
                place.assign(leaf)
            return self._full.assign(tf.constant(1))

        tf.cond(when, fill, lambda: tf.constant(0))

    def take(self) -> Batch | None:
        """The batch that was kept last, once; None if there is none. Runs on the host."""
        if not int(self._full.read()):
            return None
        self._full.assign(tf.constant(0))
        found = [place.read() for place in self._leaves]
        for place, leaf in zip(self._leaves, found, strict=True):
            place.assign(tf.constant(_nothing(leaf.dtype)))
        rest = iter(found)
        return self._like.map(lambda _: next(rest))


@dataclass(frozen=True)
class Again:
    """What a check needs to be made again, by hand.

    Attributes:
        batch: of the step.
        stash: where it is kept.
        engine: whose gradients are judged.
        memory_budget: bytes for one chunk of samples.
    """

    batch: Batch
    stash: Stash
    engine: Engine
    memory_budget: int

    def request(self, model: keras.Model, batch: Batch, rtol: float | None) -> Request:
        """The same check of a batch that was kept."""
        return Request(model, batch, self.engine.as_traced(), rtol, self.memory_budget, turn=0)


def _nothing(dtype: tf.DType) -> Any:
    """What takes the place of a leaf; no tensor of the graph that may be being traced."""
    return "" if dtype == tf.string else np.zeros([], dtype.as_numpy_dtype)
