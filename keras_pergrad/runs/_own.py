"""The samples' own losses in a batch: each reduced with its own denominators, then added."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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


def _sum_of_own(reduction: _keras.Reduction) -> tf.Tensor:
    if reduction.is_none or not tf.convert_to_tensor(reduction.values).shape.rank:
        return reduction.by_keras()
    values, weights = reduction.merged_weights()
    terms = values if weights is None else values * weights
    totals, own = _by_sample(terms), _by_sample(tf.ones_like(terms))
    if reduction.kind == "sum":
        own = tf.ones_like(own)
    elif reduction.kind == "mean_with_sample_weight":
        own = own if weights is None else _by_sample(weights)
    elif reduction.mask is not None:
        mask = tf.cast(reduction.mask, own.dtype)
        own *= _by_sample(mask) / _by_sample(tf.ones_like(mask))
    total = tf.reduce_sum(tf.math.divide_no_nan(totals, own))
    return total if reduction.kind == "sum" else _keras.scale_for_replicas(total)


def _by_sample(values: tf.Tensor) -> tf.Tensor:
    """`[B, ...]` → `[B]`, summed."""
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))
