"""`Product`: `g_i = X_iᵀ G_i`, from what met the weight and the gradient where they met."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, signs, wide
from keras_pergrad.gradients._materialized import Materialized


@dataclass(frozen=True)
class Product(Factor):
    """The gradient of a matrix that `b` samples met at `T` positions each.

    Goodfellow 2015 (1510.01799) for one position; for several, the Gram form of Bu et al. 2022
    (2205.10683), or the matrices themselves, whichever takes fewer multiplications.

    Attributes:
        left: `X [b, T, I]`.
        right: `G [b, T, O]`.
    """

    left: tf.Tensor
    right: tf.Tensor
    form = "factored"

    @property
    def entries(self) -> int:
        return self.left.shape[2] * self.right.shape[2]

    @property
    def writes_out(self) -> bool:  # type: ignore[override]
        """Whether there are several positions."""
        return self.left.shape[1] != 1

    def cheapest(self) -> Factor:
        lazy = self.left.shape[1] in (None, 1) or self._gram_is_cheaper()
        return self if lazy else self._as_materialized()

    def squared_norms(self) -> tf.Tensor:
        left, right = wide(self.left), wide(self.right)
        if left.shape[1] == 1:
            return _squares(left[:, 0]) * _squares(right[:, 0])
        if self._gram_is_cheaper():
            inner = tf.matmul(left, left, transpose_b=True)
            return tf.reduce_sum(inner * tf.matmul(right, right, transpose_b=True), axis=[1, 2])
        return tf.reduce_sum(tf.square(self._matrices()), axis=[1, 2])

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        left, right = wide(self.left), wide(self.right)
        if weights is not None:
            left *= tf.cast(weights, left.dtype)[:, None, None]
        return tf.matmul(_flat(left), _flat(right), transpose_a=True)

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        left, right = wide(self.left), wide(self.right)
        pushed = tf.matmul(_flat(left), tf.cast(vector, left.dtype))
        return tf.reduce_sum(tf.reshape(pushed, tf.shape(right)) * right, axis=[1, 2])

    def gram(self, other: Factor) -> tf.Tensor:
        if not isinstance(other, Product) or not self.left.shape[1] == other.left.shape[1] == 1:
            return self._as_materialized().gram(other)
        pairs = ((self.left, other.left), (self.right, other.right))
        left, right = (
            tf.matmul(wide(mine[:, 0]), wide(theirs[:, 0]), transpose_b=True)
            for mine, theirs in pairs
        )
        return left * right

    def sum_of_squares(self) -> tf.Tensor:
        if self.left.shape[1] == 1:
            left, right = tf.square(wide(self.left[:, 0])), tf.square(wide(self.right[:, 0]))
            return tf.matmul(left, right, transpose_a=True)
        return tf.reduce_sum(tf.square(self._matrices()), axis=0)

    def materialize(self) -> tf.Tensor:
        return self._matrices()

    @property
    def meets_few(self) -> bool:
        """Multiplications: `b²(I + O)` for the Gram matrix of one position, else `b I O`."""
        samples, (positions, inputs, outputs) = self.left.shape[0], self._sizes()
        return (
            positions == 1
            and samples is not None
            and samples * (inputs + outputs) < inputs * outputs
        )

    def projected_sum(self) -> tf.Tensor:
        left, right = _flat(wide(self.left)), _flat(wide(self.right))
        narrow = tf.matmul(right, signs(right.shape[-1], right.dtype))
        return tf.matmul(left, narrow, transpose_a=True)

    def _matrices(self) -> tf.Tensor:
        return tf.matmul(wide(self.left), wide(self.right), transpose_a=True)

    def _as_materialized(self) -> Materialized:
        return Materialized(self._matrices())

    def _gram_is_cheaper(self) -> bool:
        """Multiplications: `T²(I + O)` for the Gram form, `T I O` for the matrices.

        Which is also whether the operands are smaller than the matrices.
        """
        positions, inputs, outputs = self._sizes()
        return positions is not None and positions * (inputs + outputs) < inputs * outputs

    def _sizes(self) -> tuple[int | None, int, int]:
        """`T`, where it is known, `I` and `O`."""
        return self.left.shape[1], self.left.shape[2], self.right.shape[2]


def _squares(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(rows), axis=-1)


def _flat(value: tf.Tensor) -> tf.Tensor:
    """`[b, T, n]` → `[b T, n]`."""
    return tf.reshape(value, [-1, value.shape[-1]])
