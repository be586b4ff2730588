"""The batch of a step that failed its check, kept for the host to look into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import Engine, Remembered
from keras_pergrad.equivalence import Request, pick
from keras_pergrad.runs import Batch

ROWS = 64  # the most that are kept where there is no room for a batch of any size


class Kept(NamedTuple):
    """What was kept of a batch.

    Attributes:
        batch: the rows.
        places: theirs in the whole batch, in order.
        size: of the whole batch.
    """

    batch: Batch
    places: list[int]
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether no row is missing."""
        return len(self.places) == self.size


class Stash:
    """Room for one batch, filled where a step runs and emptied by the host.

    Args:
        batch: one such batch; its sizes may be others later.
        rows: how many of its samples there is room for; None for any number, which XLA cannot
            have, as it knows the shapes of variables when it compiles. More samples than that are
            chosen from by chance, as neighbours may be alike.
    """

    def __init__(self, batch: Batch, rows: int | None = None):
        self._rows = rows
        self._like = batch.map(lambda leaf: leaf.dtype)
        self._size = Remembered(0)
        self._places = Remembered(np.zeros([rows or 0], np.int32), [rows])
        self._leaves = [Remembered(*_empty(leaf, rows)) for leaf in batch.leaves]

    def keep(self, batch: Batch, when: tf.Tensor, turn: int | tf.Tensor = 0) -> None:
        """Keeps `batch` if `when`, a scalar bool; which of its rows, if not all, says `turn`."""

        def fill() -> tf.Tensor:
            places = self._chosen(batch, turn)
            self._places.assign(places)
            kept = batch if self._rows is None else batch.rows(places)
            for room, leaf in zip(self._leaves, kept.leaves, strict=True):
                room.assign(leaf)
            return self._size.assign(tf.convert_to_tensor(batch.size))

        tf.cond(when, fill, lambda: tf.constant(0))

    def _chosen(self, batch: Batch, turn: int | tf.Tensor) -> tf.Tensor:
        """The places of the rows to be kept: `[rows]`, again from the first if there are fewer."""
        if self._rows is None:
            return tf.range(batch.size)
        places = tf.sort(pick(batch.size, self._rows, turn))
        return tf.gather(places, tf.math.floormod(tf.range(self._rows), tf.size(places)))

    def take(self) -> Kept | None:
        """What was kept last, once; None if there is nothing. Runs on the host."""
        size = int(self._size.read())
        if not size:
            return None
        self._size.assign(tf.constant(0))
        count = min(size, self._rows or size)
        places = self._places.read().numpy()[:count].tolist()
        found = [room.read() for room in self._leaves]
        if self._rows is None:
            for room, leaf in zip(self._leaves, found, strict=True):
                room.assign(tf.constant(_nothing(leaf.dtype)))
        rest = iter(found)
        return Kept(self._like.map(lambda _: next(rest)[:count]), places, size)


def stash_for(batch: Batch, memory_budget: int) -> Stash | None:
    """Room for such a batch, where one is traced; None where there is none.

    Ragged and sparse rows are of no one tensor. Under XLA the rows have to be of known shape, and
    those for which there is room take up memory always, so that they are to fit the budget.
    """
    if not batch.is_dense:
        return None
    if not _keras.under_xla():
        return Stash(batch)
    shapes = [leaf.shape[1:] for leaf in batch.leaves]
    if not all(shape.is_fully_defined() for shape in shapes):
        return None
    pairs = zip(batch.leaves, shapes, strict=True)
    row = sum(leaf.dtype.size * shape.num_elements() for leaf, shape in pairs)
    rows = min(ROWS, memory_budget // max(row, 1))
    return Stash(batch, rows) if rows > 1 else None


@dataclass(frozen=True)
class Again:
    """What a check needs to be made again, by hand.

    Attributes:
        batch: of the step.
        stash: where it is kept.
        engine: whose gradients are judged.
        memory_budget: bytes for one chunk of samples.
        compiled: whether XLA compiles the step, as which it is not made again.
    """

    batch: Batch
    stash: Stash
    engine: Engine
    memory_budget: int
    compiled: bool

    def request(self, model: keras.Model, kept: Kept, rtol: float | None) -> Request:
        """The same check of what was kept."""
        engine, places = self.engine.as_traced(), tuple(kept.places)
        return Request(model, kept.batch, engine, rtol, self.memory_budget, 0, places=places)


def _empty(leaf: tf.Tensor, rows: int | None) -> tuple[Any, list[int] | None]:
    """What takes the place of a leaf, and the shape of what may."""
    if rows is None:
        return _nothing(leaf.dtype), None
    shape = [rows, *leaf.shape[1:]]
    return np.zeros(shape, leaf.dtype.as_numpy_dtype), shape


def _nothing(dtype: tf.DType) -> Any:
    """What takes the place of a leaf; no tensor of the graph that may be being traced."""
    return "" if dtype == tf.string else np.zeros([], dtype.as_numpy_dtype)
