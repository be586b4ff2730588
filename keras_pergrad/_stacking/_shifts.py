"""Padding and rolling.

TensorFlow 2.21 pads with 0, whatever the constant; and rolling along a negative axis comes to roll
the samples.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


def convert_pad(operation: Any) -> Any:
    value, value_stacked, _ = operation.input(0)
    paddings, paddings_stacked, _ = operation.input(1)
    constant, constant_stacked, _ = operation.input(2)
    if not value_stacked or paddings_stacked or constant_stacked:
        return _keras.looped(operation)
    paddings = tf.concat([tf.zeros([1, 2], paddings.dtype), paddings], axis=0)
    return _keras.stacked(
        tf.raw_ops.PadV2(input=value, paddings=paddings, constant_values=constant)
    )


def convert_roll(operation: Any) -> Any:
    value, value_stacked, _ = operation.input(0)
    shift, shift_stacked, _ = operation.input(1)
    axis, axis_stacked, _ = operation.input(2)
    if not value_stacked or shift_stacked or axis_stacked:
        return _keras.looped(operation)
    behind = tf.where(axis < 0, axis + tf.cast(tf.rank(value), axis.dtype), axis + 1)
    return _keras.stacked(tf.roll(value, shift, behind))
