"""`Scaled`: gradients times one number, which is multiplied with the answers alone."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor


@dataclass(frozen=True)
class Scaled(Factor):
    """The gradients of a factor, all multiplied by one number.

    What a factor holds is as large as the activations, its answers are not: `[b]` for norms.

    Attributes:
        seen: the gradients.
        number: the number, a scalar.
    """

    seen: Factor
    number: tf.Tensor

    @property
    def form(self) -> str:  # type: ignore[override]
        """The form of what is scaled."""
        return self.seen.form

    @property
    def entries(self) -> int:
        return self.seen.entries

    @property
    def writes_out(self) -> bool:  # type: ignore[override]
        """As for what is scaled."""
        return self.seen.writes_out

    @property
    def written_out(self) -> bool:
        """Whether what is scaled is."""
        return self.seen.written_out

    def squared_norms(self) -> tf.Tensor:
        return self._scaled(self.seen.squared_norms(), 2)

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        if weights is None:
            return self._scaled(self.seen.weighted_sum(None))
        return self.seen.weighted_sum(self._scaled(tf.cast(weights, tf.float64)))

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        return self._scaled(self.seen.dot(vector))

    def gram(self, other: Factor) -> tf.Tensor:
        if isinstance(other, Scaled):
            return other._scaled(self._scaled(self.seen.gram(other.seen)))
        return self._scaled(self.seen.gram(other))

    def sum_of_squares(self) -> tf.Tensor:
        return self._scaled(self.seen.sum_of_squares(), 2)

    def materialize(self) -> tf.Tensor:
        return self._scaled(self.seen.materialize())

    @property
    def meets_few(self) -> bool:
        """As for what is scaled."""
        return self.seen.meets_few

    def projected_sum(self) -> tf.Tensor:
        return self._scaled(self.seen.projected_sum())

    def _scaled(self, values: tf.Tensor, power: int = 1) -> tf.Tensor:
        return values * tf.cast(self.number, values.dtype) ** power


def times(number: tf.Tensor | float, factor: Factor) -> Scaled:
    """The gradients of a factor, all multiplied by a scalar."""
    if isinstance(factor, Scaled):
        return Scaled(factor.seen, factor.number * tf.cast(number, factor.number.dtype))
    return Scaled(factor, tf.convert_to_tensor(number))
