"""`Viewed`: gradients of a weight that met the data reshaped, transposed or negated."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor
from keras_pergrad.gradients._materialized import Materialized


@dataclass(frozen=True)
class View:
    """A rearrangement of a weight's entries, which leaves every inner product as it is.

    Attributes:
        before: the shape that it starts from.
        permutation: of `before`'s axes.
        after: the shape that the permuted entries are given.
    """

    before: tuple[int, ...]
    permutation: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def reshape(cls, before: tuple[int, ...], after: tuple[int, ...]) -> View:
        """The entries in their order, in another shape."""
        return cls(before, tuple(range(len(before))), after)

    @property
    def is_none(self) -> bool:
        """Whether the weight is as it was."""
        return self.before == self.after and self.permutation == tuple(range(len(self.before)))

    def push(self, weight: tf.Tensor) -> tf.Tensor:
        """From the weight to what meets the data."""
        return tf.reshape(tf.transpose(weight, self.permutation), self.after)

    def pull(self, gradient: tf.Tensor) -> tf.Tensor:
        """From the gradient of what met the data, `[*after]`, to that of the weight."""
        shape = [self.before[axis] for axis in self.permutation]
        return tf.transpose(tf.reshape(gradient, shape), _inverse(self.permutation))

    def pull_rows(self, gradients: tf.Tensor) -> tf.Tensor:
        """`pull` for each of `[b, *after]`."""
        shape = [-1, *(self.before[axis] for axis in self.permutation)]
        axes = [0, *(axis + 1 for axis in _inverse(self.permutation))]
        return tf.transpose(tf.reshape(gradients, shape), axes)


@dataclass(frozen=True)
class Viewed(Factor):
    """The gradients of a weight, from those of a view of it.

    Attributes:
        seen: the gradients of the view.
        view: from the weight to what met the data.
        sign: -1 where the data met the negated weight, else 1.
    """

    seen: Factor
    view: View
    sign: int = 1

    @property
    def form(self) -> str:  # type: ignore[override]
        """The form of what is viewed."""
        return self.seen.form

    @property
    def entries(self) -> int:
        return self.seen.entries

    @property
    def writes_out(self) -> bool:  # type: ignore[override]
        """As for what is viewed."""
        return self.seen.writes_out

    @property
    def written_out(self) -> bool:
        """Whether what is viewed is."""
        return self.seen.written_out

    def cheapest(self) -> Viewed:
        return Viewed(self.seen.cheapest(), self.view, self.sign)

    def squared_norms(self) -> tf.Tensor:
        return self.seen.squared_norms()

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        return self._signed(self.view.pull(self.seen.weighted_sum(weights)))

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        return self._signed(self.seen.dot(self.view.push(vector)))

    def gram(self, other: Factor) -> tf.Tensor:
        if isinstance(other, Viewed) and (other.view, other.sign) == (self.view, self.sign):
            return self.seen.gram(other.seen)
        return Materialized(self.materialize()).gram(other)

    def sum_of_squares(self) -> tf.Tensor:
        return self.view.pull(self.seen.sum_of_squares())

    def materialize(self) -> tf.Tensor:
        return self._signed(self.view.pull_rows(self.seen.materialize()))

    @property
    def meets_few(self) -> bool:
        """As for what is viewed."""
        return self.seen.meets_few

    def _signed(self, value: tf.Tensor) -> tf.Tensor:
        return value if self.sign == 1 else -value


def _inverse(permutation: tuple[int, ...]) -> list[int]:
    return sorted(range(len(permutation)), key=lambda axis: permutation[axis])
