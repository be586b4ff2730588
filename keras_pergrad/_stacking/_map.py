"""`tf.vectorized_map` with converters of our own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad._stacking._convolutions import (
    convert_conv2d,
    convert_conv2d_backprop_filter,
    convert_conv2d_backprop_input,
)
from keras_pergrad._stacking._products import convert_batch_matmul
from keras_pergrad._stacking._shifts import convert_pad, convert_roll, convert_squeeze
from keras_pergrad._stacking._volumes import (
    convert_conv3d,
    convert_conv3d_backprop_filter,
    convert_conv3d_backprop_input,
)


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
            "BatchMatMulV2": convert_batch_matmul,
            "Conv2D": convert_conv2d,
            "Conv2DBackpropInput": convert_conv2d_backprop_input,
            "Conv2DBackpropFilter": convert_conv2d_backprop_filter,
            "Conv3D": convert_conv3d,
            "Conv3DBackpropFilterV2": convert_conv3d_backprop_filter,
            "Conv3DBackpropInputV2": convert_conv3d_backprop_input,
            "PadV2": convert_pad,
            "Roll": convert_roll,
            "Squeeze": convert_squeeze,
        }
    )
