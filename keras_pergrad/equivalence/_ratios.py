"""The numbers that a verdict compares with the tolerance, as tensors: for graphs and for the host.

A ratio of 1 is what is just allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from keras_pergrad.equivalence._probe import Coupling

if TYPE_CHECKING:
    from keras_pergrad.equivalence._evidence import Evidence

BATCH, MEAN, DIFFERENCE, PRODUCT, SPREAD = range(5)


def overall(table: tf.Tensor) -> tf.Tensor:
    """The norm of the difference over that of what was summed, all variables together.

    What was summed is a batch gradient or, where the samples cancel out, a sample's.

    Args:
        table: `[..., V, 5]`.

    Returns:
        `[...]`
    """
    return _ratio(tf.sqrt(_summed(table)[..., DIFFERENCE]), _scale(table))


def by_variable(table: tf.Tensor, rtol: float) -> tf.Tensor:
    """Each variable's difference over what it is allowed, `[..., V]`."""
    batch, _, difference, _, spread = tf.unstack(table, axis=-1)
    own = tf.sqrt(tf.maximum(batch, spread))
    allowed = 10 * rtol * own + rtol / 8 * _scale(table)[..., None]
    return _ratio(tf.sqrt(difference), allowed)


def tells(table: tf.Tensor) -> tf.Tensor:
    """Whether there is anything to compare; of zeros everything is true. Bool, `[...]`."""
    return _scale(table) > 0


def coupling(found: Coupling) -> tf.Tensor:
    """How far predictions and the loss move, each relative to its own size, `[3]`.

    Last, predictions when nothing changes. They are the largest single number's error, not that of
    a norm, of two graphs that TensorFlow may optimize each in its way, and count a tenth.
    """
    moved = tf.stack([found.model, found.loss, found.replay / 10])
    return _ratio(moved, tf.stack([found.model_scale, found.loss_scale, found.model_scale]))


def badness(evidence: Evidence, rtol: float) -> tf.Tensor:
    """The worst ratio of all tests; infinite where a gradient is not finite, -1 for no rows."""
    both = tf.stack([evidence.table, evidence.oracle])
    tied = coupling(evidence.coupling) / rtol
    # Where all samples were run alone, what they notice of each other has been judged by that.
    known = tf.equal(evidence.asked, evidence.size) & tells(evidence.table)
    judged = tf.where(known & [True, True, False], tf.zeros_like(tied), tied)
    by_all = tf.reshape(by_variable(both, rtol), [-1])
    ratios = tf.concat([overall(both) / rtol, by_all, judged], axis=0)
    sick = tf.reduce_any(tf.math.is_nan(tf.concat([ratios, tied], axis=0)))
    sick |= evidence.non_finite > 0
    worst = tf.where(sick, tf.constant(float("inf"), tf.float64), tf.reduce_max(ratios))
    return tf.where(evidence.size == 0, tf.constant(-1.0, tf.float64), worst)


def _summed(table: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(table, axis=-2)


def _scale(table: tf.Tensor) -> tf.Tensor:
    sums = _summed(table)
    return tf.sqrt(tf.maximum(sums[..., BATCH], sums[..., SPREAD]))


def _ratio(part: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    """`part / whole`; 0 where both are zero, infinite where only `whole` is."""
    safe = tf.where(whole == 0, tf.ones_like(whole), whole)
    infinite = tf.constant(float("inf"), part.dtype)
    return tf.where(whole == 0, tf.where(part == 0, tf.zeros_like(part), infinite), part / safe)
