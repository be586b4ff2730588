"""Products of matrices.

`[B, 1, M, K] x [K, N]` corrupts memory on CPU under oneDNN (tensorflow issues 117700, 123109). The
left side is flattened instead, so that nothing broadcasts.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


def convert_batch_matmul(operation: Any) -> Any:
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
