"""Samples in as many pieces as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_pergrad._text import large
from keras_pergrad.gradients._blocks import Block, Blocks
from keras_pergrad.gradients._factor import rows_where, zero_where_not

_MORE_THAN_ANY_BATCH = 2**13


class Chunked(Blocks):
    """Blocks of at most `chunk` samples, computed when they are asked for.

    A batch that fits one chunk is computed once and kept. The last of several chunks is filled up
    with samples whose gradients are replaced by zero, so that all chunks are one computation.

    Args:
        find: from indices `[b]` to the block of those samples.
        size: the number of samples.
        bytes_each: what one sample needs.
        budget: what a chunk may need; one sample is computed whatever it needs.
        bytes_written_out: what one sample needs besides where gradients are written out.
    """

    def __init__(
        self,
        find: Callable[[tf.Tensor], Block],
        size: int | tf.Tensor,
        bytes_each: int,
        budget: int,
        bytes_written_out: int = 0,
    ):
        self._find = find
        self.size = size
        self.bytes_each = bytes_each
        self.budget = budget
        self._bytes_written_out = bytes_written_out
        self.chunk = max(1, budget // max(1, bytes_each))
        self._whole: tuple[Any, Block] | None = None

    def for_writing_out(self) -> Blocks:
        if not self._bytes_written_out:
            return self
        needed = self.bytes_each + self._bytes_written_out
        return Chunked(self._find, self.size, needed, self.budget)

    def at(self, indices: tf.Tensor) -> Block:
        if self._whole is not None and self._whole[0] is _place():
            return self._whole[1].rows(indices)
        return self._find(indices)

    def __str__(self) -> str:
        """What it needs, in words: `needs 41.2 GB (...), budget 8 GB: chunks of 96`."""
        if not isinstance(self.size, int):
            return f"each sample needs {large(self.bytes_each)}: chunks of at most {self.chunk}"
        return self.in_chunks(self.size) or f"{self._needs(self.size)}: one chunk"

    def in_chunks(self, size: int) -> str | None:
        """That `size` samples do not fit the budget at once, in words; None where they do."""
        return None if size <= self.chunk else f"{self._needs(size)}: chunks of {self.chunk}"

    def _needs(self, size: int) -> str:
        counted = f"(B={size} × {large(self.bytes_each)})"
        return f"needs {large(size * self.bytes_each)} {counted}, budget {large(self.budget)}"

    @property
    def fits(self) -> bool | tf.Tensor:
        """Whether one chunk holds the batch; where its size is unknown, any usual batch."""
        if not isinstance(self.size, int) and self.chunk >= _MORE_THAN_ANY_BATCH:
            return True
        return self.size <= self.chunk

    def total(self, function: Callable[[Block], Any]) -> Any:
        if isinstance(self.fits, bool):
            return function(self._all()) if self.fits else self._sum(function)
        return tf.cond(self.fits, lambda: function(self._new()), lambda: self._sum(function))

    def each(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        if isinstance(self.fits, bool):
            return function(self._all()) if self.fits else self._list(function)
        return tf.cond(self.fits, lambda: function(self._new()), lambda: self._list(function))

    def _new(self) -> Block:
        return self.at(tf.range(self.size))

    def _all(self) -> Block:
        if self._whole is None or self._whole[0] is not _place():
            self._whole = (_place(), self._new())
        return self._whole[1]

    def _padded(self, start: tf.Tensor) -> Block:
        indices = start + tf.range(self.chunk)
        valid = indices < self.size
        block = self.at(tf.minimum(indices, self.size - 1))
        factors = [zero_where_not(valid, factor) for factor in block.factors]
        return Block(block.indices, lambda: rows_where(valid, block.losses), factors)

    def _sum(self, function: Callable[[Block], Any]) -> Any:
        first = function(self._padded(tf.constant(0)))

        def step(start, total):
            more = function(self._padded(start))
            return start + self.chunk, tf.nest.map_structure(tf.add, total, more)

        return tf.while_loop(self._goes_on, step, (tf.constant(self.chunk), first))[1]

    def _list(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        first = function(self._padded(tf.constant(0)))
        count = (self.size + self.chunk - 1) // self.chunk
        pieces = tf.TensorArray(first.dtype, size=count).write(0, first)

        def step(start, pieces):
            piece = function(self._padded(start))
            return start + self.chunk, pieces.write(start // self.chunk, piece)

        loop = tf.while_loop(self._goes_on, step, (tf.constant(self.chunk), pieces))
        return loop[1].concat()[: self.size]

    def _goes_on(self, start: tf.Tensor, *_: Any) -> tf.Tensor:
        return start < self.size


def _place() -> Any:
    """The graph being traced, in which alone its tensors mean something; None eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
