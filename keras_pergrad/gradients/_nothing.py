"""`Nothing`: the gradients of a weight that meets no sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, tensors_of


@dataclass(frozen=True)
class Nothing(Factor):
    """Zeros that take no memory.

    Attributes:
        zeros: one a sample, `[b]`, in the weight's dtype.
        shape: the weight's.
    """

    zeros: tf.Tensor
    shape: tuple[int, ...]
    form = "zero"
    writes_out = False

    @property
    def entries(self) -> int:
        return math.prod(self.shape)

    def squared_norms(self) -> tf.Tensor:
        return self.zeros

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        del weights
        return tf.zeros(self.shape, self.zeros.dtype)

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        del vector
        return self.zeros

    def gram(self, other: Factor) -> tf.Tensor:
        sizes = [tf.shape(self.zeros)[0], tf.shape(tensors_of(other)[0])[0]]
        return tf.zeros(sizes, self.zeros.dtype)

    def sum_of_squares(self) -> tf.Tensor:
        return tf.zeros(self.shape, self.zeros.dtype)

    def materialize(self) -> tf.Tensor:
        return tf.zeros([tf.shape(self.zeros)[0], *self.shape], self.zeros.dtype)
