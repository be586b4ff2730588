"""The gradients of a weight that is used in several places: added before they are squared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, rows_of, tensors_of, wide
from keras_pergrad.gradients._gathered import Gathered
from keras_pergrad.gradients._materialized import Materialized
from keras_pergrad.gradients._product import Product
from keras_pergrad.gradients._viewed import Viewed


def summed(parts: Sequence[Factor]) -> Factor:
    """One factor for the sum of several of one weight; positions are laid side by side."""
    rest = list(parts)
    done: list[Factor] = []
    while rest:
        first = rest.pop(0)
        alike = [first, *(each for each in rest if _alike(first, each))]
        rest = [each for each in rest if not any(each is one for one in alike)]
        done.append(_joined(alike))
    return done[0] if len(done) == 1 else Summed(tuple(done))


@dataclass(frozen=True)
class Summed(Factor):
    """The sum of factors of different kinds. What is not linear in it goes sample by sample.

    Attributes:
        parts: the factors.
    """

    parts: tuple[Factor, ...]
    form = "factored, sum"

    @property
    def entries(self) -> int:
        return self.parts[0].entries

    def cheapest(self) -> Factor:
        parts = [part.cheapest() for part in self.parts]
        if all(part.written_out for part in parts):
            return Materialized(tf.add_n([part.materialize() for part in parts]))
        return self

    def squared_norms(self) -> tf.Tensor:
        return self._one_by_one(lambda sample: Materialized(sample.materialize()).squared_norms())

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        return tf.add_n([part.weighted_sum(weights) for part in self.parts])

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        return tf.add_n([part.dot(vector) for part in self.parts])

    def gram(self, other: Factor) -> tf.Tensor:
        return Materialized(self.materialize()).gram(other)

    def sum_of_squares(self) -> tf.Tensor:
        def add(total: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
            sample = Materialized(rows_of(self, index[None]).materialize())
            return total + sample.sum_of_squares()

        return tf.foldl(add, tf.range(self._size()), tf.zeros_like(self.weighted_sum(None)))

    def materialize(self) -> tf.Tensor:
        return tf.add_n([part.materialize() for part in self.parts])

    def _one_by_one(self, function: Callable[[Summed], tf.Tensor]) -> tf.Tensor:
        real = [wide(tensor).dtype for tensor in tensors_of(self) if tensor.dtype.is_floating]
        each = tf.map_fn(
            lambda index: function(rows_of(self, index[None]))[0],
            tf.range(self._size()),
            fn_output_signature=real[0],
        )
        return tf.ensure_shape(each, [None])

    def _size(self) -> tf.Tensor:
        return tf.shape(tensors_of(self)[0])[0]


def _alike(one: Factor, other: Factor) -> bool:
    """Whether two factors can be one with the positions of both."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Viewed) and isinstance(other, Viewed):
        same = (one.view, one.sign) == (other.view, other.sign)
        return same and _alike(one.seen, other.seen)
    return isinstance(one, (Product, Gathered, Materialized))


def _joined(parts: list[Factor]) -> Factor:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, Viewed):
        return Viewed(_joined([part.seen for part in parts]), first.view, first.sign)  # type: ignore[attr-defined]
    if isinstance(first, Materialized):
        return Materialized(tf.add_n([part.materialize() for part in parts]))
    beside = functools.partial(tf.concat, axis=1)
    if isinstance(first, Gathered):
        ids = beside([part.ids for part in parts])  # type: ignore[attr-defined]
        return Gathered(ids, beside([part.right for part in parts]), first.vocabulary)  # type: ignore[attr-defined]
    left, right = ([getattr(part, name) for part in parts] for name in ("left", "right"))
    return Product(beside(left), beside(right))
