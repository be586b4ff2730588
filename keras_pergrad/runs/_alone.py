"""How much each sample's predictions count in the batch's loss, against a batch of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept, tensors_held
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._cut import row_cut
from keras_pergrad.runs._leaves import leaves, map_leaves

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


class Weights(NamedTuple):
    """What the loss does with one output.

    Attributes:
        weights: `[n]`, `B` times the factor between the loss's derivative in a sample's
            predictions and that of the loss of the sample alone; 1 in a plain mean, NaN where the
            sample's own derivative is zero.
        residuals: `[n]`, what such a factor leaves of that derivative, over its own size.
    """

    weights: tf.Tensor
    residuals: tf.Tensor


def weights_in_loss(run: Run, samples: Sequence[int] | None = None) -> list[Weights]:
    """The weights of samples, by default of all, by outputs. Eagerly; at the run's predictions."""
    batch, alone = _derivatives(run, range(int(run.size)) if samples is None else samples)
    size = int(run.size)
    return [
        _weights(tf.cast(in_batch, tf.float64) * size, tf.cast(by_itself, tf.float64))
        for in_batch, by_itself in zip(batch, alone, strict=True)
    ]


def ties_in_loss(run: Run, several: Sequence[tf.Tensor]) -> list[float]:
    """How far the loss's derivative in some predictions depends on others, by outputs. Eagerly.

    A sum of losses of the samples, however each is weighted, has a derivative in a sample's
    predictions that does not move with another sample's: its mixed second derivatives are zero.

    Args:
        run: the run.
        several: choices of samples, each `[B]`, whose predictions move halfway to their neighbours'
            and are halved, which neither a mean over many nor a loss of directions overlooks;
            labels stay.

    Returns:
        The largest change of a derivative in the others' predictions, over the largest derivative.
    """
    told = _parts.replay(run)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None):
        y_pred, terms = _parts.forward(run, run.batch, unroll=False)
        none, drawn = [tf.zeros_like(term) for term in terms], told.drawn

        def derivative(change: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
            moved = map_leaves(change, y_pred)  # what Keras remembers as its logits would not move
            with told.turned_to(None, drawn):  # the loss draws the same noise each time
                return _derivative(run, run.batch, moved, none, False)

        before = derivative(tf.identity)
        found = [
            [
                _change(old, new, ~which)
                for old, new in zip(
                    before, derivative(functools.partial(_moved, which=which)), strict=True
                )
            ]
            for which in several
        ]
    return [max(each) for each in zip(*found, strict=True)]


def _moved(leaf: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    if not leaf.dtype.is_floating:
        return leaf
    halved = (leaf + tf.roll(leaf, 1, axis=0)) / 4
    return tf.where(tf.reshape(which, [-1] + [1] * (leaf.shape.rank - 1)), halved, leaf)


def _change(old: tf.Tensor, new: tf.Tensor, which: tf.Tensor) -> float:
    change = tf.reduce_max(tf.abs(tf.boolean_mask(new - old, which)))
    return float(tf.math.divide_no_nan(change, tf.reduce_max(tf.abs(old))))


def _weights(batch: tf.Tensor, alone: tf.Tensor) -> Weights:
    square = tf.reduce_sum(alone**2, axis=1)
    factor = tf.math.divide_no_nan(tf.reduce_sum(batch * alone, axis=1), square)
    left = tf.norm(batch - factor[:, None] * alone, axis=1)
    scale = tf.maximum(tf.norm(batch, axis=1), tf.reduce_max(tf.norm(alone, axis=1)) * 1e-6)
    weights = tf.where(square > 0, factor, tf.cast(float("nan"), tf.float64))
    return Weights(weights, tf.math.divide_no_nan(left, scale))


def _derivatives(run: Run, samples: Sequence[int]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Of the batch's loss in some predictions, and of each of their own losses in them."""
    told, before = _parts.replay(run), tensors_held(run.model)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None):
        y_pred, terms = _parts.forward(run, run.batch, unroll=False)
        batch = _derivative(run, run.batch, y_pred, [tf.zeros_like(term) for term in terms], False)
        rows = []
        for k in samples:
            with row_cut(run, k, y_pred, told, before) as row:
                none = [tf.zeros_like(row.of(t) if t.shape.rank else t) for t in terms]
                rows.append(_derivative(run, row.batch, row.y_pred, none, True))
    part = [tf.gather(each, list(samples)) for each in batch]
    return part, [tf.concat(each, axis=0) for each in zip(*rows, strict=True)]


def _derivative(
    run: Run, batch: Batch, y_pred: Any, terms: list[tf.Tensor], alone: bool
) -> list[tf.Tensor]:
    """Of the loss in each output, and in the logits behind it, as `[samples, entries]`."""
    outputs = [_keras.with_logits(leaf) for leaf in leaves(y_pred) if leaf.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = _parts.loss(run, batch, y_pred, terms, alone=alone)
    found = tape.gradient(loss, outputs, unconnected_gradients="zero")
    size = int(batch.size)
    return [tf.concat([tf.reshape(g, [size, -1]) for g in each], axis=1) for each in found]
