"""Reduced losses: every `keras.losses.Loss` reduces through `reduce_weighted_values`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss


@dataclass(frozen=True)
class Reduction:
    """A loss that is about to be reduced.

    Attributes:
        original: Keras' `reduce_weighted_values`.
        values: the losses, `[B, ...]`, or one scalar that a loss function has reduced itself.
        sample_weight: their weights, or None.
        mask: which of them count, or None.
        kind: Keras' name of the reduction, as `"sum"` or `"mean_with_sample_weight"`, or None.
        dtype: what is computed in.
    """

    original: Callable[..., tf.Tensor]
    values: Any
    sample_weight: Any
    mask: Any
    kind: str | None
    dtype: Any

    @property
    def is_none(self) -> bool:
        """Whether nothing is reduced."""
        return self.kind in (None, "none")

    def by_keras(self) -> tf.Tensor:
        """What Keras reduces it to."""
        return self.original(self.values, self.sample_weight, self.mask, self.kind, self.dtype)

    def merged_weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The values and their weights (masks as 0 and 1), ranks matched as Keras does."""
        values, weights = keras.ops.convert_to_tensor(self.values, dtype=self.dtype), None
        if self.sample_weight is not None:
            weights = keras.ops.convert_to_tensor(self.sample_weight, dtype=self.dtype)
        weights = keras_loss.apply_mask(weights, self.mask, dtype=values.dtype, reduction="sum")
        if weights is None:
            return values, None
        weights = keras.ops.cast(weights, values.dtype)
        return keras_loss.squeeze_or_expand_to_same_rank(values, weights)


ReductionHook = Callable[[Reduction], tf.Tensor]


def listened_reduction(original: Callable, hook: Callable[[], ReductionHook | None]) -> Callable:
    """Keras' reduction, which leaves the answer to `hook()` where there is one."""

    @functools.wraps(original)
    def wrapper(values, sample_weight=None, mask=None, reduction="sum_over_batch_size", dtype=None):
        asked = Reduction(original, values, sample_weight, mask, reduction, dtype)
        answer = hook()
        return asked.by_keras() if answer is None else answer(asked)

    return wrapper


def scale_for_replicas(value: tf.Tensor) -> tf.Tensor:
    """`value` divided by the number of replicas, as Keras divides every mean loss."""
    return keras_loss.scale_loss_for_distribution(value)
