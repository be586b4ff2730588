"""Variables of no model that carry what was measured to the host."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

CAPACITY = 4096  # samples between two looks of the host, under XLA, which wants fixed shapes


class Room:
    """A table that grows by the rows of each measured step, until the host takes it.

    Args:
        columns: how many numbers a row has.
        dtype: of the numbers.
        fixed: whether its shape must not change, as under XLA; then it has `capacity` rows.
        capacity: how many rows it has room for, if `fixed`.
    """

    def __init__(self, columns: int, dtype: tf.DType, *, fixed: bool, capacity: int = CAPACITY):
        rows = capacity if fixed else 0
        shape = [rows if fixed else None, columns]
        self._empty = tf.zeros([rows, columns], dtype)
        self._rows = tf.Variable(self._empty, trainable=False, shape=shape)
        self._count = tf.Variable(0, trainable=False, dtype=tf.int32)
        self._fixed, self.capacity = fixed, capacity

    def add(self, rows: tf.Tensor) -> None:
        """Adds `rows [n, columns]`. What there is no room for is counted, and lost."""
        size = tf.shape(rows)[0]
        if self._fixed:
            places = self._count + tf.range(size)
            places = tf.where(places < self.capacity, places, -1)
            kept = tf.tensor_scatter_nd_update(
                tf.pad(self._rows, [[1, 0], [0, 0]]), places[:, None] + 1, rows
            )
            self._rows.assign(kept[1:])
        else:
            self._rows.assign(tf.concat([self._rows, rows], axis=0))
        self._count.assign_add(size)

    def take(self) -> tuple[np.ndarray, int]:
        """The rows since the last time, and how many there were; there may have been no room."""
        count = int(self._count)
        if not count:
            return self._empty.numpy()[:0], 0
        found = self._rows.numpy()[:count]
        self._count.assign(0)
        if not self._fixed:
            self._rows.assign(self._empty)
        return found, count
