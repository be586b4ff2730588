"""Blocks times one number."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Block, Blocks, times


class ScaledBlocks(Blocks):
    """Blocks times a factor that is known once all losses are."""

    def __init__(self, blocks: Blocks, factor: tf.Tensor):
        self._blocks = blocks
        self._factor = factor
        self.size, self.held, self.interacts = blocks.size, blocks.held, blocks.interacts
        self.expected = [each * tf.cast(factor, each.dtype) for each in blocks.expected]

    def __str__(self) -> str:
        return str(self._blocks)

    def at(self, indices):
        return self._scale(self._blocks.at(indices))

    def total(self, function):
        return self._blocks.total(lambda block: function(self._scale(block)))

    def each(self, function):
        return self._blocks.each(lambda block: function(self._scale(block)))

    def _scale(self, block: Block) -> Block:
        factors = [times(self._factor, factor) for factor in block.factors]

        def losses() -> tf.Tensor:
            return block.losses * tf.cast(self._factor, block.losses.dtype)

        return Block(block.indices, losses, factors)
