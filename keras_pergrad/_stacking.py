"""`tf.vectorized_map`, exactly, and without a word.

How it stacks the operations that TensorFlow 2.21 stacks wrongly or not at all:

- `BatchMatMulV2`: `[B, 1, M, K] x [K, N]` corrupts memory on CPU under oneDNN (tensorflow issues
  117700, 123109). The left side is flattened instead, so that nothing broadcasts.
- `Conv2D` and its gradients with groups: no CPU kernel in float64 or backwards (Keras wraps them in
  XLA, which vectorizing takes away), so each group is convolved by itself.
- `Conv2DBackpropFilter`: wrong with groups when only the output's gradient is stacked, and a loop
  otherwise. It is one product of the input's patches with the output's gradient.
- `PadV2`: pads with 0, whatever the constant.
- `Roll`: a negative axis comes to mean the samples.
- `Squeeze` of no named axes: takes the samples' axis away where there is one sample. Keras squeezes
  what it adds to one row, as the gates of an LSTM.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


def stacked_map(function: Callable[[Any], Any], values: Any) -> Any:
    """`function` of every entry of `values`, all at once, as `tf.vectorized_map` computes it."""
    with _exact_converters(), _quietly():
        return tf.vectorized_map(function, values)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps TensorFlow from announcing each operation that it loops over: slow there, but exact."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _exact_converters() -> contextlib.AbstractContextManager[None]:
    return _keras.converters_replaced(
        {
            "BatchMatMulV2": _convert_batch_matmul,
            "Conv2D": _convert_conv2d,
            "Conv2DBackpropInput": _convert_conv2d_backprop_input,
            "Conv2DBackpropFilter": _convert_conv2d_backprop_filter,
            "PadV2": _convert_pad,
            "Roll": _convert_roll,
            "Squeeze": _convert_squeeze,
        }
    )


def _convert_conv2d(operation: Any) -> Any:
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


def _convert_conv2d_backprop_input(operation: Any) -> Any:
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


def _convert_conv2d_backprop_filter(operation: Any) -> Any:
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


def _convert_batch_matmul(operation: Any) -> Any:
    left, left_stacked, _ = operation.input(0)
    right, right_stacked, _ = operation.input(1)
    if operation.get_attr("adj_x"):
        left = tf.linalg.adjoint(left)
    if operation.get_attr("adj_y"):
        right = tf.linalg.adjoint(right)
    left_rank = left.shape.rank - int(left_stacked)
    right_rank = right.shape.rank - int(right_stacked)
    rank = max(left_rank, right_rank)
    left = _with_batch_axes(left, left_stacked, rank)
    right = _with_batch_axes(right, right_stacked, rank)
    return _keras.stacked(_matmul(left, right))


def _with_batch_axes(value: tf.Tensor, stacked: bool, rank: int) -> tf.Tensor:
    """`[n or 1, *batch, rows, columns]` with `rank - 2` batch axes."""
    if not stacked:
        value = value[None]
    for _ in range(rank + 1 - value.shape.rank):
        value = tf.expand_dims(value, 1)
    return value


def _matmul(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """A matrix product over equal batch axes: by flattening, or by writing the broadcast out."""
    if all(size == 1 for size in right.shape[:-2]):
        matrix = tf.reshape(right, tf.shape(right)[-2:])
        flat = tf.reshape(left, [-1, tf.shape(left)[-1]])
        shape = tf.concat([tf.shape(left)[:-1], tf.shape(matrix)[-1:]], axis=0)
        return tf.reshape(tf.matmul(flat, matrix), shape)
    batch = tf.broadcast_dynamic_shape(tf.shape(left)[:-2], tf.shape(right)[:-2])
    left = tf.broadcast_to(left, tf.concat([batch, tf.shape(left)[-2:]], axis=0))
    right = tf.broadcast_to(right, tf.concat([batch, tf.shape(right)[-2:]], axis=0))
    return tf.matmul(left, right)


def _convert_pad(operation: Any) -> Any:
    value, value_stacked, _ = operation.input(0)
    paddings, paddings_stacked, _ = operation.input(1)
    constant, constant_stacked, _ = operation.input(2)
    if not value_stacked or paddings_stacked or constant_stacked:
        return _keras.looped(operation)
    paddings = tf.concat([tf.zeros([1, 2], paddings.dtype), paddings], axis=0)
    return _keras.stacked(
        tf.raw_ops.PadV2(input=value, paddings=paddings, constant_values=constant)
    )


def _convert_roll(operation: Any) -> Any:
    value, value_stacked, _ = operation.input(0)
    shift, shift_stacked, _ = operation.input(1)
    axis, axis_stacked, _ = operation.input(2)
    if not value_stacked or shift_stacked or axis_stacked:
        return _keras.looped(operation)
    behind = tf.where(axis < 0, axis + tf.cast(tf.rank(value), axis.dtype), axis + 1)
    return _keras.stacked(tf.roll(value, shift, behind))


def _convert_squeeze(operation: Any) -> Any:
    if operation.get_attr("squeeze_dims"):
        return _keras.standard_converter("Squeeze", operation)
    shape = operation.op.inputs[0].shape
    if not shape.is_fully_defined():
        return _keras.looped(operation)
    axes = [axis + 1 for axis, size in enumerate(shape) if size == 1]
    value = operation.stacked_input(0)
    return _keras.stacked(tf.squeeze(value, axes) if axes else value)
