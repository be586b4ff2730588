"""Factors: representations of the sample gradients of one weight."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import tensorflow as tf


class Factor(abc.ABC):
    """The gradients of `b` samples with respect to one weight, in whatever form.

    All but `materialize` accumulate in float32 at least, and answer in it.
    """

    form: str

    @abc.abstractmethod
    def squared_norms(self) -> tf.Tensor:
        """`‖g_i‖²`, `[b]`."""

    @abc.abstractmethod
    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        """`Σ_i w_i g_i` in the weight's shape; `weights [b]`, None for ones."""

    @abc.abstractmethod
    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        """`⟨g_i, v⟩`, `[b]`, for one `v` in the weight's shape."""

    @abc.abstractmethod
    def gram(self, other: Factor) -> tf.Tensor:
        """`⟨g_i, h_j⟩`, `[b, c]`, with the gradients of `c` other samples."""

    @abc.abstractmethod
    def sum_of_squares(self) -> tf.Tensor:
        """`Σ_i g_i∘g_i` in the weight's shape."""

    @abc.abstractmethod
    def materialize(self) -> tf.Tensor:
        """The gradients themselves, `[b, *weight.shape]`."""


@dataclass(frozen=True)
class Materialized(Factor):
    """The gradients as they are, one after the other.

    Attributes:
        values: `[b, *weight.shape]`.
    """

    values: tf.Tensor
    form = "materialized"

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


def wide(values: tf.Tensor) -> tf.Tensor:
    """float32 in place of float16 and bfloat16: what sums and squares are accumulated in."""
    narrow = values.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(values, tf.float32) if narrow else values


def _as_rows(values: tf.Tensor) -> tf.Tensor:
    """`[b, *shape]` → `[b, entries]`, wide."""
    return tf.reshape(wide(values), [-1, values.shape[1:].num_elements()])
