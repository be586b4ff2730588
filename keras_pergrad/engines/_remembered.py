"""What a graph remembers from one run to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


class Remembered:
    """One tensor, made while a graph is traced.

    Not a `tf.Variable`, which a `tf.function` that is traced a second time may not make. It is
    freed with the last graph that knows it.

    Args:
        value: what it is at first.
        shape: of what it may become, None for any.
    """

    def __init__(self, value: Any, shape: Sequence[int | None] | None = ()):
        self._shape = tf.TensorShape(shape)
        with tf.init_scope():
            value = tf.convert_to_tensor(value)
            self._dtype = value.dtype
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=value.dtype, shape=self._shape, shared_name=_keras.anonymous_name()
            )
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def read(self) -> tf.Tensor:
        """What it is."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=self._dtype)
        return tf.ensure_shape(value, self._shape)

    def assign(self, value: tf.Tensor) -> tf.Tensor:
        """Makes it `value`, and answers that."""
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
        return tf.identity(value)
