"""A number that a graph remembers from one run to the next."""

from __future__ import annotations

import itertools

import tensorflow as tf

_names = (f"keras_pergrad/remembered/{k}" for k in itertools.count())


class Remembered:
    """One whole number, made while a graph is traced.

    Not a `tf.Variable`, which a `tf.function` that is traced a second time may not make.

    Args:
        value: what it is at first.
    """

    def __init__(self, value: int):
        with tf.init_scope():
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=tf.int32, shape=[], shared_name=next(_names)
            )
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=tf.constant(value))

    def read(self) -> tf.Tensor:
        """What it is."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=tf.int32)
        return tf.ensure_shape(value, [])

    def assign(self, value: tf.Tensor) -> tf.Tensor:
        """Makes it `value`, and answers that."""
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
        return tf.identity(value)
