"""What a batched run did that a sample alone cannot repeat by itself: its noise, its denominators.

A sample alone would draw other noise than its row of the batch, and would divide by its own mask
instead of the batch's. So the batched run is recorded, and the sample's run is told what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import DataError


class ReducedLoss(NamedTuple):
    """A loss that Keras has reduced.

    Attributes:
        terms: what was added up, `[B, ...]`: losses times weights, masks as zeros.
        divisor: what the sum was divided by; None for a loss that came as a scalar.
        result: the reduced loss.
    """

    terms: tf.Tensor
    divisor: tf.Tensor | None
    result: tf.Tensor


@dataclass
class Recording:
    """The batched run, as far as samples need to know it.

    Attributes:
        draws: every random tensor, in the order drawn.
        divisors: for every reduced loss, in order, the number that the batch's sum of weighted
            losses was divided by, a scalar; 1 for a sum, None for a loss that came as a scalar.
        reduced: the same losses, with what was reduced.
        forward_draws: how many of the draws the forward pass made, before the loss.
    """

    draws: list[tf.Tensor] = field(default_factory=list)
    divisors: list[tf.Tensor | None] = field(default_factory=list)
    reduced: list[ReducedLoss] = field(default_factory=list)
    forward_draws: int = 0

    @contextlib.contextmanager
    def listen(self) -> Iterator[None]:
        """Records what runs inside."""
        with _keras.intercept(draw=self._hear_draw, reduce=self._hear_reduction):
            yield

    def _hear_draw(self, draw: _keras.Draw) -> tf.Tensor:
        value = draw.drawn()
        self.draws.append(value)
        return value

    def _hear_reduction(self, reduction: _keras.Reduction) -> tf.Tensor:
        _refuse_silent_broadcast(reduction.values, reduction.sample_weight)
        divisor, result = divisor_of(reduction), reduction.by_keras()
        values, weights = reduction.merged_weights()
        terms = values if weights is None else values * weights
        self.divisors.append(divisor)
        self.reduced.append(ReducedLoss(terms, divisor, result))
        return result

    def forward_ends(self) -> None:
        """Marks where the forward pass ended and the loss began."""
        self.forward_draws = len(self.draws)


def divisor_of(reduction: _keras.Reduction) -> tf.Tensor | None:
    """The denominator of Keras' `reduce_weighted_values`; None for a loss that is a scalar."""
    values, weights = reduction.merged_weights()
    if values.shape.rank == 0:
        return None
    if reduction.is_none or reduction.kind == "sum":
        return tf.ones((), values.dtype)
    if reduction.kind == "mean_with_sample_weight" and weights is not None:
        return tf.reduce_sum(weights)
    terms = values if weights is None else values * weights
    count = tf.cast(tf.size(terms), values.dtype)
    if reduction.mask is not None and reduction.kind != "mean_with_sample_weight":
        mask = tf.cast(reduction.mask, values.dtype)
        count *= tf.reduce_sum(mask) / tf.cast(tf.size(mask), values.dtype)
    return count


def _refuse_silent_broadcast(values: Any, sample_weight: Any) -> None:
    """Refuses `sample_weight [B]` on a loss `[B, T]`: it would weight positions, not samples."""
    values = tf.convert_to_tensor(values)
    rank = values.shape.rank
    if sample_weight is None or rank is None or rank < 2:
        return
    shape = tf.convert_to_tensor(sample_weight).shape
    if shape.rank == 1 and values.shape[1:].num_elements() != 1:
        raise DataError(
            "One weight a sample meets several losses a sample. Keras would lay the weights along "
            "the positions, without a word where the two sizes are equal. Give the weights a "
            "trailing axis, `sample_weight[:, None]`. "
            f"Received: sample_weight of shape {shape}, losses of shape {values.shape}.",
            causes=("broadcast",),
        )
