"""The coupling probe: change other samples, hold all noise, and see whether a sample notices.

The mean of the sample gradients can equal the batch gradient although the samples interact, for
every engine that splits the batch's own backward pass. So interaction is looked for by behaviour.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.equivalence._chance import halvings
from keras_pergrad.runs import Batch, Outcome, Run, leaves, map_leaves


class Coupling(NamedTuple):
    """How far something moved that should not move, and the scale to judge it by; float64 scalars.

    Attributes:
        model, model_scale: the largest change of a prediction when *other* rows of the inputs
            change, and the largest prediction.
        loss, loss_scale: the mixed second difference of the batch's scalar when the two halves of
            the samples change, together and each by itself, and the largest scalar.
        replay: the largest change of a prediction when the step is run again with nothing changed:
            what all engines do has to be what training did.
    """

    model: tf.Tensor
    model_scale: tf.Tensor
    loss: tf.Tensor
    loss_scale: tf.Tensor
    replay: tf.Tensor


def probe(run: Run, turn: int | tf.Tensor) -> Coupling:
    """Changes one half of the samples to their neighbours, then the other, then all.

    Twice, with halves that chance makes: what ties samples to each other may keep to one of them.
    """
    halves, plain = halvings(run.size, turn), run.again()
    everybody = tf.ones_like(halves[0])
    changing = _keras.traced_once(lambda which: _changing(run, plain, which))
    loss, (_, together) = tf.cast(plain.loss, tf.float64), changing(everybody)
    moved, mixed, largest = [], [], []
    for half in halves:
        (first, one), (second, other) = changing(half), changing(~half)
        moved += [first, second]
        mixed.append(tf.abs(loss - one - other + together))
        largest.append(tf.reduce_max(tf.abs(tf.stack([loss, one, other, together]))))
    replay = _movement(run.y_pred, plain.y_pred, everybody)
    worst = [tf.reduce_max(tf.stack(each)) for each in (moved, mixed, largest)]
    return Coupling(worst[0], _largest(plain.y_pred), worst[1], worst[2], replay)


def _changing(run: Run, plain: Outcome, which: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How far other predictions move with some samples changed, and the loss of that.

    Keras' own losses are asked at predictions that moved, so that only they are judged.
    """
    outcome = run.again(changed(run.batch, which))
    loss = outcome.loss if run.is_opaque else run.loss_at(_moved(plain.y_pred, which))
    moved = _movement(plain.y_pred, outcome.y_pred, ~which)
    return moved, tf.cast(loss, tf.float64)


def changed(batch: Batch, which: tf.Tensor) -> Batch:
    """The batch with the rows `which [B]` replaced by their neighbours, labels and all."""
    if not batch.is_dense:
        return batch
    rows = tf.where(which, tf.roll(tf.range(batch.size), 1, axis=0), tf.range(batch.size))
    return batch.rows(rows)


def _moved(y_pred: Any, which: tf.Tensor) -> Any:
    """Predictions with the rows `which [B]` moved halfway to their neighbours'."""

    def move(leaf):
        if not _per_sample(leaf, which):
            return leaf
        halfway = (leaf + tf.roll(leaf, 1, axis=0)) * tf.cast(0.5, leaf.dtype)
        moved = tf.where(_as_rows(which, leaf), halfway, leaf)
        return _keras.with_mask(moved, _keras.mask_of(leaf))

    return map_leaves(move, y_pred)


def _movement(before: Any, after: Any, which: tf.Tensor) -> tf.Tensor:
    found = [tf.zeros((), tf.float64)]
    for old, new in zip(leaves(before), leaves(after), strict=True):
        if _per_sample(old, which):
            change = tf.abs(tf.cast(new, tf.float64) - tf.cast(old, tf.float64))
            seen = tf.where(_as_rows(which, old), change, tf.zeros((), tf.float64))
            found.append(_max(seen))
    return tf.reduce_max(tf.stack(found))


def _largest(y_pred: Any) -> tf.Tensor:
    values = [_max(tf.abs(tf.cast(leaf, tf.float64))) for leaf in leaves(y_pred) if _real(leaf)]
    return tf.reduce_max(tf.stack([tf.zeros((), tf.float64), *values]))


def _max(values: tf.Tensor) -> tf.Tensor:
    """The largest entry, NaN if there is one, 0 of none."""
    top = tf.reduce_max(tf.concat([tf.reshape(values, [-1]), tf.zeros([1], values.dtype)], axis=0))
    return tf.where(tf.reduce_any(tf.math.is_nan(values)), tf.cast(float("nan"), values.dtype), top)


def _real(leaf: Any) -> bool:
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def _per_sample(leaf: Any, which: tf.Tensor) -> bool:
    """Whether the leaf has a row a sample, as far as tracing knows."""
    if not _real(leaf) or not leaf.shape.rank:
        return False
    return leaf.shape[0] is None or which.shape[0] in (None, leaf.shape[0])


def _as_rows(which: tf.Tensor, leaf: tf.Tensor) -> tf.Tensor:
    return tf.reshape(which, tf.concat([[-1], tf.ones([leaf.shape.rank - 1], tf.int32)], axis=0))
