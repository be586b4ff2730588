"""Three-dimensional convolutions with groups, and their gradients.

TensorFlow has no CPU kernel for groups (Keras wraps them in XLA, which vectorizing takes away), so
each group is convolved by itself: one sample after the other, as TensorFlow loops over those
without groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras

Convolution = Callable[..., tf.Tensor]


def convert_conv3d(operation: Any) -> Any:
    def convolve(images: tf.Tensor, filters: tf.Tensor, **options: Any) -> tf.Tensor:
        return tf.raw_ops.Conv3D(input=images, filter=filters, **options)

    channels, filters = operation.op.inputs[0].shape[-1], operation.op.inputs[1].shape
    return _by_group(operation, convolve, channels, filters[-2], split=(0, 1))


def convert_conv3d_backprop_input(operation: Any) -> Any:
    def convolve(sizes: tf.Tensor, filters: tf.Tensor, gradient: tf.Tensor, **options: Any) -> Any:
        sizes = tf.concat([sizes[:-1], [tf.cast(tf.shape(filters)[-2], sizes.dtype)]], axis=0)
        return tf.raw_ops.Conv3DBackpropInputV2(
            input_sizes=sizes, filter=filters, out_backprop=gradient, **options
        )

    channels, filters = operation.outputs[0].shape[-1], operation.op.inputs[1].shape
    return _by_group(operation, convolve, channels, filters[-2], split=(1, 2))


def convert_conv3d_backprop_filter(operation: Any) -> Any:
    def convolve(images: tf.Tensor, sizes: tf.Tensor, gradient: tf.Tensor, **options: Any) -> Any:
        outputs = tf.cast(tf.shape(gradient)[-1], sizes.dtype)
        sizes = tf.concat([sizes[:-1], [outputs]], axis=0)
        return tf.raw_ops.Conv3DBackpropFilterV2(
            input=images, filter_sizes=sizes, out_backprop=gradient, **options
        )

    channels, filters = operation.op.inputs[0].shape[-1], operation.outputs[0].shape
    return _by_group(operation, convolve, channels, filters[-2], split=(0, 2))


def _by_group(
    operation: Any,
    convolve: Convolution,
    channels: int | None,
    channels_of_filters: int | None,
    *,
    split: tuple[int, int],
) -> Any:
    """One sample after the other, and of each the groups; `split` names the operands cut in groups.

    Groups lie beside each other on the last axis of each of them, and of what comes out.
    """
    known = channels and channels_of_filters and operation.get_attr("data_format") == b"NDHWC"
    groups = channels // channels_of_filters if known else 1  # type: ignore[operator]
    if groups == 1:
        return _keras.looped(operation)
    operation.stack_inputs()
    operands = [operation.stacked_input(k) for k in range(len(operation.op.inputs))]
    options = _options(operation)

    def of_one(operands: list[tf.Tensor]) -> tf.Tensor:
        cut = [
            tf.split(each, groups, axis=-1) if k in split else [each] * groups
            for k, each in enumerate(operands)
        ]
        return tf.concat([convolve(*group, **options) for group in zip(*cut, strict=True)], axis=-1)

    output = operation.outputs[0]
    return _keras.stacked(tf.map_fn(of_one, operands, fn_output_signature=output.dtype))


def _options(operation: Any) -> dict[str, Any]:
    return {
        "strides": list(operation.get_attr("strides")),
        "dilations": list(operation.get_attr("dilations")),
        "padding": operation.get_attr("padding").decode(),
        "data_format": operation.get_attr("data_format").decode(),
    }
