"""A variable of no model that carries what was measured to the host."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class Room:
    """Whole numbers of 64 bits that each measured step adds to, until the host takes them.

    Args:
        capacity: how many there is room for, as under XLA, which wants a fixed shape; None for any
            number.
    """

    def __init__(self, capacity: int | None):
        self.capacity = capacity
        self._empty = tf.zeros([capacity or 0], tf.int64)
        self._numbers = tf.Variable(self._empty, trainable=False, shape=[capacity])
        self._count = None if capacity is None else tf.Variable(0, trainable=False)

    def add(self, numbers: tf.Tensor) -> None:
        """Adds `numbers [n]`. What there is no room for is counted, and lost."""
        if self._count is None:
            self._numbers.assign(tf.concat([self._numbers, numbers], axis=0))
            return
        size = tf.shape(numbers)[0]
        places = self._count + tf.range(size)
        places = tf.where(places < self.capacity, places, -1)
        padded = tf.pad(self._numbers, [[1, 0]])
        self._numbers.assign(tf.tensor_scatter_nd_update(padded, places[:, None] + 1, numbers)[1:])
        self._count.assign_add(size)

    def take(self) -> tuple[np.ndarray, int]:
        """The numbers since the last time, and how many there were; there may have been no room."""
        if self._count is None:
            found = self._numbers.numpy()
            if len(found):
                self._numbers.assign(self._empty, read_value=False)
            return found, len(found)
        count = int(self._count)
        if not count:
            return np.zeros(0, np.int64), 0
        self._count.assign(0, read_value=False)
        return self._numbers.numpy()[:count], count
