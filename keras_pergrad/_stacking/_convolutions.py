"""Two-dimensional convolutions with groups, and their gradients.

TensorFlow 2.21 has no CPU kernel for groups in float64 or backwards (Keras wraps them in XLA, which
vectorizing takes away), so each group is convolved by itself. The gradient of the filters is wrong
with groups when only the output's gradient is stacked, and a loop otherwise: it is one product of
the input's patches with the output's gradient.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


def convert_conv2d(operation: Any) -> Any:
    images, _, _ = operation.input(0)
    filters, filters_stacked, _ = operation.input(1)
    groups = _groups(operation, operation.op.inputs[0].shape[-1], filters)
    if groups == 1 or filters_stacked:
        return _keras.standard_converter("Conv2D", operation)
    pieces = zip(
        tf.split(_merged(images), groups, axis=-1), tf.split(filters, groups, axis=-1), strict=True
    )
    outputs = [tf.raw_ops.Conv2D(input=i, filter=f, **_conv_options(operation)) for i, f in pieces]
    return _keras.stacked(_parted(tf.concat(outputs, axis=-1), tf.shape(images)[:2]))


def convert_conv2d_backprop_input(operation: Any) -> Any:
    sizes = operation.unstacked_input(0)
    filters, filters_stacked, _ = operation.input(1)
    channels = operation.outputs[0].shape[-1]
    groups = _groups(operation, channels, filters)
    if groups == 1 or filters_stacked:
        return _keras.standard_converter("Conv2DBackpropInput", operation)
    gradient = operation.stacked_input(2)
    flat = _merged(gradient)
    sizes = tf.concat([tf.shape(flat)[:1], sizes[1:3], [channels // groups]], axis=0)
    pieces = zip(tf.split(filters, groups, axis=-1), tf.split(flat, groups, axis=-1), strict=True)
    options = _conv_options(operation)
    outputs = [
        tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=f, out_backprop=g, **options)
        for f, g in pieces
    ]
    return _keras.stacked(_parted(tf.concat(outputs, axis=-1), tf.shape(gradient)[:2]))


def convert_conv2d_backprop_filter(operation: Any) -> Any:
    options = _conv_options(operation)
    if options["data_format"] != "NHWC":
        return _keras.looped(operation)
    operation.stack_inputs(stack_indices=[0, 2])
    images, gradient = operation.stacked_input(0), operation.stacked_input(2)
    height, width, channels, outputs = operation.outputs[0].shape
    groups = operation.op.inputs[0].shape[-1] // channels
    count = tf.shape(images)[0]
    patches = _patches(_merged(images), height, width, options)
    patches = tf.reshape(patches, [count, -1, height * width, groups, channels])
    gradient = tf.reshape(gradient, [count, -1, groups, outputs // groups])
    filters = tf.einsum("npkgc,npgo->nkcgo", patches, gradient)
    return _keras.stacked(tf.reshape(filters, [count, height, width, channels, outputs]))


def _patches(images: tf.Tensor, height: int, width: int, options: dict) -> tf.Tensor:
    padding = options["padding"]
    if padding == "EXPLICIT":
        pads = options["explicit_paddings"]
        images = tf.pad(images, [pads[k : k + 2] for k in range(0, 8, 2)])
        padding = "VALID"
    return tf.image.extract_patches(
        images,
        sizes=[1, height, width, 1],
        strides=options["strides"],
        rates=options["dilations"],
        padding=padding,
    )


def _conv_options(operation: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: list(operation.get_attr(name))
        for name in ("strides", "dilations", "explicit_paddings")
    }
    for name in ("padding", "data_format"):
        options[name] = operation.get_attr(name).decode()
    return options


def _groups(operation: Any, channels: int | None, filters: tf.Tensor) -> int:
    if operation.get_attr("data_format") != b"NHWC" or not channels or not filters.shape[-2]:
        return 1
    return channels // filters.shape[-2]


def _merged(value: tf.Tensor) -> tf.Tensor:
    """`[n, b, ...]` → `[n * b, ...]`."""
    return tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], axis=0))


def _parted(value: tf.Tensor, leading: tf.Tensor) -> tf.Tensor:
    """`[n * b, ...]` → `[n, b, ...]`."""
    return tf.reshape(value, tf.concat([leading, tf.shape(value)[1:]], axis=0))
