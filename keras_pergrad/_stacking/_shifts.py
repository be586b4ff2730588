"""Padding, rolling and squeezing.

TensorFlow 2.21 pads with 0, whatever the constant; rolling along a negative axis comes to roll the
samples; and squeezing no named axes takes the samples' axis away where there is one sample, as
where Keras squeezes what it adds to the gates of an LSTM.
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


def convert_squeeze(operation: Any) -> Any:
    if operation.get_attr("squeeze_dims"):
        return _keras.standard_converter("Squeeze", operation)
    shape = operation.op.inputs[0].shape
    if not shape.is_fully_defined():
        return _keras.looped(operation)
    axes = [axis + 1 for axis, size in enumerate(shape) if size == 1]
    value = operation.stacked_input(0)
    return _keras.stacked(tf.squeeze(value, axes) if axes else value)
