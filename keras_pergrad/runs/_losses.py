"""The losses of the samples, without running any of them: from what Keras was about to reduce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._recording import ReducedLoss
from keras_pergrad.runs._terms import owned

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


def contributed_losses(run: Run) -> tf.Tensor | None:
    """`B c_i`, `[B]`, of the scalar `Σ_i c_i + R`; None where the user's own code reduces it."""
    rates, reduced = run.loss_rates, run.recording.reduced
    if rates is None or run.is_opaque or len(rates) != len(reduced):
        return None
    size = tf.cast(run.size, tf.float64)
    total = tf.zeros([tf.convert_to_tensor(run.size)], tf.float64)
    for rate, each in zip(rates, reduced, strict=True):
        if rate is not None:
            total += tf.cast(rate, tf.float64) * size * _by_sample(each, run.size)
    for term in owned(run.terms, run.free_terms):
        if term.shape.rank:
            total += size * _rows(tf.cast(term, tf.float64), run.size)
    return total


def own_losses(run: Run, indices: tf.Tensor) -> tf.Tensor:
    """The losses of the samples at `indices [b]`, each run alone, forward only: `[b]`."""
    free = run.free_terms

    def loss_of(index: tf.Tensor) -> tf.Tensor:
        told, batch = _parts.replay(run), run.batch.row(index)
        with attributes_kept(run.model), _parts.sandbox(run), told.of(index):
            y_pred, terms = _parts.forward(run, batch, unroll=False)
            loss = _parts.loss(run, batch, y_pred, owned(terms, free), alone=True)
        return tf.cast(loss, tf.float64)

    if tf.executing_eagerly():
        return tf.stack([loss_of(index) for index in indices])
    signature = tf.TensorSpec([], tf.float64)
    return tf.map_fn(loss_of, indices, fn_output_signature=signature, parallel_iterations=1)


def _by_sample(reduced: ReducedLoss, size: int | tf.Tensor) -> tf.Tensor:
    """The part of the reduced loss that each sample makes, `[B]`."""
    divisor = tf.ones((), tf.float64) if reduced.divisor is None else reduced.divisor
    terms = tf.cast(reduced.terms, tf.float64)
    return tf.math.divide_no_nan(_rows(terms, size), tf.cast(divisor, tf.float64))


def _rows(terms: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """What is reduced, added up to one number a sample; NaN if it has not its rows in order."""
    size = tf.convert_to_tensor(size)
    fits = tf.equal(tf.size(terms) % tf.maximum(size, 1), 0)
    return tf.cond(
        fits,
        lambda: tf.reduce_sum(tf.reshape(terms, [size, -1]), axis=1),
        lambda: tf.fill([size], tf.constant(float("nan"), tf.float64)),
    )
