"""Blocks: all samples of a batch, in as many pieces as memory allows."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, rows_of, rows_where, zero_where_not
from keras_pergrad.gradients._materialized import Materialized

_MORE_THAN_ANY_BATCH = 2**13


@dataclass(frozen=True)
class Block:
    """Some samples.

    Attributes:
        indices: which ones, `[b]`.
        find_losses: their losses, `[b]`, not computed unless asked for.
        factors: one a variable.
    """

    indices: tf.Tensor
    find_losses: Callable[[], tf.Tensor]
    factors: Sequence[Factor]

    @cached_property
    def losses(self) -> tf.Tensor:
        """The samples' losses, `[b]`."""
        return self.find_losses()

    @classmethod
    def written_out(
        cls, indices: tf.Tensor, losses: tf.Tensor, gradients: Sequence[tf.Tensor]
    ) -> Block:
        """From losses `[b]` and gradients, each `[b, *weight.shape]`."""
        return cls(indices, lambda: losses, [Materialized(each) for each in gradients])

    def rows(self, indices: tf.Tensor) -> Block:
        """The samples at the places `indices` of this block."""
        factors = [rows_of(factor, indices) for factor in self.factors]
        return Block(indices, lambda: tf.gather(self.losses, indices), factors)


@dataclass(frozen=True)
class Held:
    """How the sample gradients of one weight are held.

    Attributes:
        operations: in which the weight meets the samples; empty where that was not asked.
        form: factored or materialized.
        bytes_each: of one sample.
        because: why it is so, where another form was wanted.
    """

    operations: tuple[str, ...]
    form: str
    bytes_each: int
    because: str = ""


class Blocks(abc.ABC):
    """The samples of a batch, to be summed over or listed, block by block.

    Attributes:
        size: the number of samples.
        held: how each weight's gradients are held; None where all are written out.
        are_shares: whether they are parts of the batch gradient, which add up whatever they are.
        expected: for shares, what their sum has to be, one tensor a variable.
        interacts: whether samples are known to meet what was made of all of them.
    """

    size: int | tf.Tensor
    held: Sequence[Held] | None = None
    are_shares: bool = False
    expected: Sequence[tf.Tensor] = ()
    interacts: bool = False

    @abc.abstractmethod
    def total(self, function: Callable[[Block], Any]) -> Any:
        """The sum over blocks of `function(block)`, a nest of tensors."""

    @abc.abstractmethod
    def each(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        """`function(block)`, `[b, ...]`, one block after the other: `[B, ...]`."""

    @abc.abstractmethod
    def at(self, indices: tf.Tensor) -> Block:
        """The block of the samples at `indices [b]`."""


class Chunked(Blocks):
    """Blocks of at most `chunk` samples, computed when they are asked for.

    A batch that fits one chunk is computed once and kept. The last of several chunks is filled up
    with samples whose gradients are replaced by zero, so that all chunks are one computation.

    Args:
        find: from indices `[b]` to the block of those samples.
        size: the number of samples.
        bytes_each: what one sample needs.
        budget: what a chunk may need; one sample is computed whatever it needs.
    """

    def __init__(
        self,
        find: Callable[[tf.Tensor], Block],
        size: int | tf.Tensor,
        bytes_each: int,
        budget: int,
    ):
        self._find = find
        self.size = size
        self.bytes_each = bytes_each
        self.budget = budget
        self.chunk = max(1, budget // max(1, bytes_each))
        self._whole: tuple[Any, Block] | None = None

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


def large(count: float) -> str:
    """Bytes in a unit that a person reads."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def _place() -> Any:
    """The graph being traced, in which alone its tensors mean something; None eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
