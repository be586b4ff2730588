"""Blocks: the samples of a batch in pieces, and what can be asked of all of them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, projected, rows_of
from keras_pergrad.gradients._materialized import Materialized


@dataclass(frozen=True)
class Block:
    """Some samples.

    Attributes:
        indices: which ones, `[b]`.
        find_losses: their losses, `[b]`, not computed unless asked for.
        factors: one a variable.
        is_whole: whether these are all samples of the batch, in their order.
    """

    indices: tf.Tensor
    find_losses: Callable[[], tf.Tensor]
    factors: Sequence[Factor]
    is_whole: bool = False

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


@dataclass(frozen=True)
class Total:
    """What is known of the samples taken together, before anything is asked of one of them.

    Attributes:
        find: gives one tensor a variable; what is not asked for is not made.
        size: the number of samples.
        are_means: whether these are means over the samples; else sums.
    """

    find: Callable[[], list[tf.Tensor]]
    size: int | tf.Tensor
    are_means: bool

    @property
    def count(self) -> int | tf.Tensor:
        """How many times what is found makes the sum: the number of samples, or one."""
        return self.size if self.are_means else 1

    def times(self, number: tf.Tensor) -> Total:
        """The same of the gradients times a scalar."""

        def scaled() -> list[tf.Tensor]:
            return [each * tf.cast(number, each.dtype) for each in self.find()]

        return Total(scaled, self.size, self.are_means)

    def marked(self, number: tf.Tensor) -> Total:
        """The same, made once `number` is known, the smallest tensor times it: NaN shows, and costs
        nothing."""

        def marked() -> list[tf.Tensor]:
            with tf.control_dependencies([number]):
                found = self.find()
                smallest = min(range(len(found)), key=lambda k: found[k].shape.num_elements() or 0)
                found[smallest] *= tf.cast(number, found[smallest].dtype)
            return found

        return Total(marked, self.size, self.are_means)

    def sums(self) -> list[tf.Tensor]:
        """`Σ_i g_i`, one tensor a variable."""
        if not self.are_means:
            return self.find()
        return [each * tf.cast(self.size, each.dtype) for each in self.find()]

    def means(self) -> list[tf.Tensor]:
        """`(1/B) Σ_i g_i`, one tensor a variable; zero for an empty batch."""
        if self.are_means:
            return self.find()
        count = tf.maximum(self.size, 1)
        return [each / tf.cast(count, each.dtype) for each in self.find()]


class Blocks(abc.ABC):
    """The samples of a batch, to be summed over or listed, block by block.

    Attributes:
        size: the number of samples.
        held: how each weight's gradients are held; None where all are written out.
        are_shares: whether they are parts of the batch gradient, which add up whatever they are.
        expected: for shares, what they have to add up to.
        interacts: whether samples are known to meet what was made of all of them.
    """

    size: int | tf.Tensor
    held: Sequence[Held] | None = None
    are_shares: bool = False
    expected: Total | None = None
    interacts: bool = False

    @property
    def fits(self) -> bool | tf.Tensor:
        """Whether all samples can be held at once, as far as that is limited."""
        return True

    @abc.abstractmethod
    def total(self, function: Callable[[Block], Any]) -> Any:
        """The sum over blocks of `function(block)`, a nest of tensors."""

    @abc.abstractmethod
    def each(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        """`function(block)`, `[b, ...]`, one block after the other: `[B, ...]`."""

    @abc.abstractmethod
    def at(self, indices: tf.Tensor) -> Block:
        """The block of the samples at `indices [b]`."""

    def for_writing_out(self) -> Blocks:
        """The same samples, cut so that what is written out of them fits the memory budget."""
        return self

    def projected_sums(self) -> list[tf.Tensor]:
        """`projected(Σ_i g_i)`, one tensor a variable."""
        return [projected(each) for each in self.total(_sums)]


def _sums(block: Block) -> list[tf.Tensor]:
    return [factor.weighted_sum(None) for factor in block.factors]


class Mapped(Blocks):
    """Blocks that pass through a function.

    Args:
        blocks: the blocks.
        change: from a block to the one that takes its place.
    """

    def __init__(self, blocks: Blocks, change: Callable[[Block], Block]):
        self._blocks = blocks
        self._change = change
        self.size, self.held, self.interacts = blocks.size, blocks.held, blocks.interacts

    @property
    def fits(self) -> bool | tf.Tensor:
        return self._blocks.fits

    def __str__(self) -> str:
        return str(self._blocks)

    def for_writing_out(self) -> Blocks:
        return Mapped(self._blocks.for_writing_out(), self._change)

    def total(self, function: Callable[[Block], Any]) -> Any:
        return self._blocks.total(lambda block: function(self._change(block)))

    def each(self, function: Callable[[Block], tf.Tensor]) -> tf.Tensor:
        return self._blocks.each(lambda block: function(self._change(block)))

    def at(self, indices: tf.Tensor) -> Block:
        return self._change(self._blocks.at(indices))
