"""Samples taken together, in double precision, to be compared with the batch."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Block

# Losses and gradients agree to rounding errors of a sum of B terms in the compute dtype, with room;
# in float64, too, as Keras' LoRA keeps to float32. What is told apart differs by its own size.
RTOL = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 1e-1, "float16": 5e-2}

# The same of samples run alone against the batch: there a number near zero may be rounded to the
# other side of a kink (ReLU, maximum), and one sample's gradient is another then.
RTOL_ALONE = RTOL | {"float32": 1e-3}


def summed(block: Block) -> list[tf.Tensor]:
    """`Σ g_i` over a block, one tensor a variable."""
    return [factor.weighted_sum(None) for factor in block.factors]


def squared_norms(block: Block) -> tf.Tensor:
    """`‖g_i‖²` in all weights, `[b]`."""
    return tf.add_n([double(factor.squared_norms()) for factor in block.factors])


def norm_of(values: list[tf.Tensor]) -> tf.Tensor:
    """The norm of all together, in float64, without copies in double precision.

    Of numbers over the largest, so that no square vanishes or overflows.
    """
    largest = [double(tf.reduce_max(tf.abs(value))) for value in values]
    top = tf.reduce_max(tf.stack([double(0.0), *largest]))
    unit = tf.where(top > 0, top, tf.ones_like(top))
    squares = [double(tf.reduce_sum(tf.square(v / tf.cast(unit, v.dtype)))) for v in values]
    return top * tf.sqrt(tf.add_n(squares))


def double(value: tf.Tensor | float) -> tf.Tensor:
    """The value in float64."""
    return tf.cast(value, tf.float64)
