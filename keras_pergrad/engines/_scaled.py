"""Blocks times one number."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Block, Blocks, Mapped, Total, times


def scaled_blocks(blocks: Blocks, number: tf.Tensor) -> Blocks:
    """Blocks times a scalar, which may be known once all losses are."""
    expected = None if blocks.expected is None else blocks.expected.times(number)
    return _mapped(blocks, number, expected)


def marked_blocks(blocks: Blocks, number: tf.Tensor) -> Blocks:
    """Blocks times a scalar that is 1 or NaN; of what they add up to, a part alone is.

    For a graph in which an assertion says that the numbers are none: should XLA compile it after
    all, and drop the assertion, every answer has a NaN.
    """
    expected = None if blocks.expected is None else blocks.expected.marked(number)
    return _mapped(blocks, number, expected)


def _mapped(blocks: Blocks, number: tf.Tensor, expected: Total | None) -> Blocks:
    def scale(block: Block) -> Block:
        factors = [times(number, factor) for factor in block.factors]

        def losses() -> tf.Tensor:
            return block.losses * tf.cast(number, block.losses.dtype)

        return Block(block.indices, losses, factors, block.is_whole)

    scaled = Mapped(blocks, scale)
    scaled.expected = expected
    return scaled
