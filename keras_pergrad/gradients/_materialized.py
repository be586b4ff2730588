"""`Materialized`: the gradients as they are, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, wide


@dataclass(frozen=True)
class Materialized(Factor):
    """The gradients as they are.

    Attributes:
        values: `[b, *weight.shape]`.
    """

    values: tf.Tensor
    form = "materialized"
    written_out = True
    writes_out = False

    @property
    def entries(self) -> int:
        return self.values.shape[1:].num_elements()

    def squared_norms(self) -> tf.Tensor:
        return tf.reduce_sum(tf.square(_as_rows(self.values)), axis=1)

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        values = wide(self.values)
        if weights is None:
            return tf.reduce_sum(values, axis=0)
        return tf.tensordot(tf.cast(weights, values.dtype), values, axes=1)

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        rows = _as_rows(self.values)
        return tf.linalg.matvec(rows, tf.cast(tf.reshape(vector, [-1]), rows.dtype))

    def gram(self, other: Factor) -> tf.Tensor:
        return tf.matmul(_as_rows(self.values), _as_rows(other.materialize()), transpose_b=True)

    def sum_of_squares(self) -> tf.Tensor:
        return tf.reduce_sum(tf.square(wide(self.values)), axis=0)

    def materialize(self) -> tf.Tensor:
        return self.values


def _as_rows(values: tf.Tensor) -> tf.Tensor:
    """`[b, *shape]` → `[b, entries]`, wide."""
    return tf.reshape(wide(values), [-1, values.shape[1:].num_elements()])
