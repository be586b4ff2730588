"""Blocks of factors that are there already, alone or beside others that are computed in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_pergrad._text import large
from keras_pergrad.gradients._blocks import Block, Blocks
from keras_pergrad.gradients._chunked import Chunked
from keras_pergrad.gradients._factor import Factor, tensors_of

# Bytes of a number that is written out: float64, or float32 and its square.
_WRITTEN = 8


class Kept(Blocks):
    """All samples in one block, of factors that are there already.

    Args:
        size: the number of samples.
        find_losses: the losses, `[B]`, not computed unless asked for.
        factors: one a variable.
        budget: bytes that what is written out of a chunk of samples may need.
    """

    def __init__(
        self,
        size: int | tf.Tensor,
        find_losses: Callable[[], tf.Tensor],
        factors: Sequence[Factor],
        budget: int,
    ):
        self.size = size
        self.budget = budget
        self._block = Block(tf.range(size), find_losses, factors, is_whole=True)

    def __str__(self) -> str:
        held = [each for factor in self._block.factors for each in tensors_of(factor)]
        needs = sum(_bytes_of(each) for each in held)
        return f"{large(needs)} in what was kept of the one forward and backward pass"

    def total(self, function: Callable[[Block], Any]) -> Any:
        return function(self._block)

    def each(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        return function(self._block)

    def at(self, indices: tf.Tensor) -> Block:
        return self._block.rows(indices)

    def for_writing_out(self) -> Blocks:
        chunked = Chunked(self.at, self.size, self.bytes_written_out, self.budget)
        return self if chunked.fits is True else chunked

    @property
    def bytes_written_out(self) -> int:
        """Of one sample, where a question needs that."""
        factors = [factor for factor in self._block.factors if factor.writes_out]
        return _WRITTEN * sum(factor.entries for factor in factors)

    def projected_sums(self) -> list[tf.Tensor]:
        return [factor.projected_sum() for factor in self._block.factors]


def beside(kept: Kept, others: Chunked, places: Sequence[int]) -> Chunked:
    """The same samples with more weights, in the chunks of those.

    Args:
        kept: some weights' factors, in order.
        others: the rest of them.
        places: where among all weights those of `others` are.
    """

    def find(indices: tf.Tensor) -> Block:
        some, rest = kept.at(indices), others.at(indices)
        factors = list(some.factors)
        for place, factor in zip(places, rest.factors, strict=True):
            factors.insert(place, factor)
        return Block(indices, lambda: rest.losses, factors)

    return Chunked(find, kept.size, others.bytes_each, others.budget, kept.bytes_written_out)


def _bytes_of(tensor: tf.Tensor) -> int:
    """What a tensor takes; an unknown number of samples counts as one."""
    return tensor.dtype.size * math.prod(size or 1 for size in tensor.shape)
