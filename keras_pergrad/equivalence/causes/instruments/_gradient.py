"""Gradients as vectors: differences, inner products and norms over all variables."""

from __future__ import annotations

import tensorflow as tf

Gradient = list[tf.Tensor]


def minus(left: Gradient, right: Gradient) -> Gradient:
    """The difference of two gradients, in double precision."""
    pairs = zip(left, right, strict=True)
    return [tf.cast(a, tf.float64) - tf.cast(b, tf.float64) for a, b in pairs]


def inner(left: Gradient, right: Gradient) -> float:
    """Their inner product."""
    pairs = zip(left, right, strict=True)
    return sum(
        float(tf.reduce_sum(tf.cast(a, tf.float64) * tf.cast(b, tf.float64))) for a, b in pairs
    )


def norm(gradient: Gradient) -> float:
    """The Euclidean norm over all variables."""
    return inner(gradient, gradient) ** 0.5


def mean_of(own: list[tf.Tensor]) -> Gradient:
    """The mean of samples' gradients, `[n, *weight.shape]` for each weight."""
    return [tf.reduce_mean(each, axis=0) for each in own]


def weighted_mean_of(own: list[tf.Tensor], weights: list[float]) -> Gradient:
    """The same, with one weight a sample."""
    return [
        tf.tensordot(tf.constant(weights, tf.float64), tf.cast(each, tf.float64), 1) / len(weights)
        for each in own
    ]
