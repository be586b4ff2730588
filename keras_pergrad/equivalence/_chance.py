"""Samples chosen by chance, which differs from turn to turn and draws nobody's seed."""

from __future__ import annotations

import tensorflow as tf

_ORACLE, _PROBE = 0x5EED, 0xC0DE


def pick(size: int | tf.Tensor, count: int | tf.Tensor, turn: int | tf.Tensor) -> tf.Tensor:
    """`count` of the samples, or all if there are fewer; no sample twice."""
    return _shuffled(size, turn, _ORACLE)[:count]


def halvings(size: int | tf.Tensor, turn: int | tf.Tensor) -> list[tf.Tensor]:
    """Two ways of cutting the samples into halves, each `[B]`, true in one of them.

    By the last two binary digits of the samples' places in a random order: any two of up to four
    samples are parted by one of them, and a rule that ties samples to others keeps to both by
    chance alone.
    """
    places = tf.argsort(_shuffled(size, turn, _PROBE))
    return [tf.math.floormod(places // digit, 2) == 1 for digit in (1, 2)]


def _shuffled(size: int | tf.Tensor, turn: int | tf.Tensor, purpose: int) -> tf.Tensor:
    """The numbers of the samples in a random order, `[B]`."""
    seed = tf.stack([tf.cast(turn, tf.int32), purpose])
    return tf.argsort(tf.random.stateless_uniform([size], seed))
