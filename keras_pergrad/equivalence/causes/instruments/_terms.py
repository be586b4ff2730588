"""What the layers give to `add_loss`, and how it depends on the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from keras_pergrad.equivalence.causes.instruments._place import place_of
from keras_pergrad.runs import Run, terms_alone, terms_apart

Kind = Literal["free", "vector", "sum", "mean", "other"]


@dataclass(frozen=True)
class Term:
    """One term.

    Attributes:
        number: of the term, in the order in which Keras adds them.
        where: the path of the layer that gives it.
        shape: of what it gives.
        kind: `"free"` of data; a `"vector"`, which Keras sums; of scalars the `"sum"` or the
            `"mean"` of what the samples give alone, or something `"other"`.
    """

    number: int
    where: str
    shape: tuple[int, ...]
    kind: Kind


def find_terms(run: Run, layers: tuple, limit: float) -> list[Term]:
    """The terms of a run.

    Args:
        run: the run.
        layers: those that mix samples, to be kept from it.
        limit: the largest relative error that rounding explains.
    """
    if not run.terms:
        return []
    alone = [terms_alone(run, k) for k in range(int(run.size))]
    found = []
    for k, (layer, value) in enumerate(terms_apart(run, layers)):
        each = tf.stack([tf.reduce_sum(tf.cast(row[k], tf.float64)) for row in alone])
        kind = "free" if run.free_terms[k] else _kind(value, each, limit)
        found.append(Term(k, place_of(layer), tuple(value.shape), kind))
    return found


def _kind(value: tf.Tensor, each: tf.Tensor, limit: float) -> Kind:
    if value.shape.rank:
        return "vector"
    total, scale = tf.reduce_sum(each), tf.reduce_sum(tf.abs(each))
    value, size = tf.cast(value, tf.float64), tf.cast(tf.size(each), tf.float64)
    if size == 1 or abs(value - total / size) <= 100 * limit * scale / size:
        return "mean"
    return "sum" if abs(value - total) <= 100 * limit * scale else "other"
