"""Blocks times one number."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Block, Blocks, Mapped, times


def scaled_blocks(blocks: Blocks, number: tf.Tensor) -> Blocks:
    """Blocks times a scalar, which may be known once all losses are."""

    def scale(block: Block) -> Block:
        factors = [times(number, factor) for factor in block.factors]

        def losses() -> tf.Tensor:
            return block.losses * tf.cast(number, block.losses.dtype)

        return Block(block.indices, losses, factors)

    scaled = Mapped(blocks, scale)
    scaled.expected = None if blocks.expected is None else blocks.expected.times(number)
    return scaled
