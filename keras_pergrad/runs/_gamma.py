"""The gradient that a gamma draw has in its shape parameter."""

from __future__ import annotations

import tensorflow as tf


def with_gamma_gradient(value: tf.Tensor, arguments: dict) -> tf.Tensor:
    """Lets the gradient of a gamma draw flow to its shape parameter, as the real operation does.

    Implicit reparameterization, Figurnov et al. 2018 (1805.08498).
    """
    alpha = arguments.get("alpha")
    if alpha is None:
        return value

    @tf.custom_gradient
    def drawn(alpha):
        def gradient(upstream):
            slope = tf.raw_ops.RandomGammaGrad(
                alpha=tf.broadcast_to(alpha, tf.shape(value)), sample=value
            )
            return _sum_to(upstream * slope, tf.shape(alpha))

        return tf.identity(value), gradient

    return drawn(tf.convert_to_tensor(alpha))


def _sum_to(value: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(value), s1=shape).r1
    return tf.reshape(tf.reduce_sum(value, axes), shape)
