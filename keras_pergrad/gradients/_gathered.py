"""`Gathered`: gradients of a table's rows, at the ids that each sample looked up."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, wide
from keras_pergrad.gradients._materialized import Materialized


@dataclass(frozen=True)
class Gathered(Factor):
    """The gradient of a table `[V, O]` of which each sample looked up `T` rows.

    An id that a sample looks up again has one gradient, the sum, before it is squared.

    Attributes:
        ids: `[b, T]`, in `[0, V)`.
        right: `G [b, T, O]`, the gradients of what was looked up.
        vocabulary: `V`.
    """

    ids: tf.Tensor
    right: tf.Tensor
    vocabulary: int
    form = "factored"

    @property
    def entries(self) -> int:
        return self.vocabulary * self.right.shape[2]

    def squared_norms(self) -> tf.Tensor:
        right = wide(self.right)
        return tf.reduce_sum(tf.matmul(right, right, transpose_b=True) * self._same(), axis=[1, 2])

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        right = wide(self.right)
        if weights is not None:
            right *= tf.cast(weights, right.dtype)[:, None, None]
        return self._scattered(right)

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        right = wide(self.right)
        return tf.reduce_sum(tf.gather(tf.cast(vector, right.dtype), self.ids) * right, axis=[1, 2])

    def gram(self, other: Factor) -> tf.Tensor:
        if not isinstance(other, Gathered) or not self._pairs_are_fewer(other):
            return Materialized(wide(self.materialize())).gram(other)
        mine, theirs = self._flat(), other._flat()
        inner = tf.matmul(wide(mine[1]), wide(theirs[1]), transpose_b=True)
        inner *= tf.cast(mine[0][:, None] == theirs[0][None, :], inner.dtype)
        positions = [tf.shape(self.ids)[0], tf.shape(self.ids)[1]]
        positions += [tf.shape(other.ids)[0], tf.shape(other.ids)[1]]
        return tf.reduce_sum(tf.reshape(inner, positions), axis=[1, 3])

    def sum_of_squares(self) -> tf.Tensor:
        same = self._same()
        together = tf.square(tf.matmul(same, wide(self.right)))
        return self._scattered(together / tf.reduce_sum(same, axis=2, keepdims=True))

    def materialize(self) -> tf.Tensor:
        count = tf.shape(self.ids)[0]
        own = self.ids + self.vocabulary * tf.range(count, dtype=self.ids.dtype)[:, None]
        right = tf.reshape(self.right, [-1, self.right.shape[-1]])
        table = tf.math.unsorted_segment_sum(right, tf.reshape(own, [-1]), count * self.vocabulary)
        return tf.reshape(table, [count, self.vocabulary, self.right.shape[-1]])

    def _pairs_are_fewer(self, other: Gathered) -> bool:
        """Whether a sample's pairs of positions with the others are fewer than the table."""
        (_, mine), (others, theirs) = self.ids.shape, other.ids.shape
        return None not in (mine, others, theirs) and mine * others * theirs < self.entries

    def _same(self) -> tf.Tensor:
        """Whether two of a sample's positions look up the same row, `[b, T, T]`, 1 or 0."""
        return tf.cast(self.ids[:, :, None] == self.ids[:, None, :], wide(self.right).dtype)

    def _flat(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.reshape(self.ids, [-1]), tf.reshape(self.right, [-1, self.right.shape[-1]])

    def _scattered(self, values: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(values, [-1, values.shape[-1]])
        return tf.math.unsorted_segment_sum(flat, tf.reshape(self.ids, [-1]), self.vocabulary)
