"""The samples' own losses in a batch: each reduced with its own denominators, then added."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras


@contextlib.contextmanager
def sum_of_own_losses(wanted: bool) -> Iterator[None]:
    """Inside, every `keras.losses.Loss` reduces to the sum of what batches of one would give.

    Args:
        wanted: whether; else losses reduce as they do.
    """
    if not wanted:
        yield
        return
    with _keras.reductions_by(_sum_of_own):
        yield


@contextlib.contextmanager
def mean_of_own_losses(numbers: Collection[int], size: Any) -> Iterator[None]:
    """Inside, some of the losses that Keras reduces are the mean of the samples' own.

    Args:
        numbers: which, in the order in which they are reduced.
        size: the number of samples.
    """
    if not numbers:
        yield
        return
    count = itertools.count()

    def reduce(reduction: _keras.Reduction) -> tf.Tensor:
        if next(count) not in numbers:
            return reduction.by_keras()
        total = _sum_of_own(reduction)  # a vector, where Keras reduces nothing
        return total / tf.cast(size, total.dtype)

    with _keras.reductions_by(reduce):
        yield


def _sum_of_own(reduction: _keras.Reduction) -> tf.Tensor:
    if reduction.is_none or not tf.convert_to_tensor(reduction.values).shape.rank:
        return reduction.by_keras()
    values, weights = reduction.merged_weights()
    totals = _by_sample(values if weights is None else values * weights)
    total = tf.reduce_sum(tf.math.divide_no_nan(totals, own_divisors(reduction)))
    return total if reduction.kind == "sum" else _keras.scale_for_replicas(total)


def own_divisors(reduction: _keras.Reduction) -> tf.Tensor:
    """What each sample's weighted losses are divided by in a batch of one, `[B]`."""
    values, weights = reduction.merged_weights()
    own = _by_sample(tf.ones_like(values if weights is None else values * weights))
    if reduction.is_none or reduction.kind == "sum":
        return tf.ones_like(own)
    if reduction.kind == "mean_with_sample_weight":
        return own if weights is None else _by_sample(weights)
    if reduction.mask is not None:
        mask = tf.cast(reduction.mask, own.dtype)
        own *= _by_sample(mask) / _by_sample(tf.ones_like(mask))
    return own


def _by_sample(values: tf.Tensor) -> tf.Tensor:
    """`[B, ...]` → `[B]`, summed."""
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))
