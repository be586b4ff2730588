"""Factors on a loss that keep float16 gradients from over- and underflowing, and off them again."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras


def gradient_scale(model: keras.Model, size: Any) -> tf.Tensor | None:
    """The loss scale over `B` for a model that computes in float16, else None.

    The scale that the optimizer's loss scaling would use on the batch: a sample's loss is about
    `B` times as large as its contribution, and would overflow where the batch's does not.
    """
    if not any(layer.compute_dtype == "float16" for layer in _keras.layers_of(model)):
        return None
    scale = loss_scale(model)
    scale = tf.ones(()) if scale is None else scale
    return scale / tf.cast(tf.maximum(size, 1), tf.float32)


def loss_scale(model: keras.Model) -> tf.Tensor | None:
    """What the optimizer multiplies the loss by, if it does."""
    one = tf.ones(())
    scaled = one if model.optimizer is None else model.optimizer.scale_loss(one)
    return None if scaled is one else scaled


def without_scale(gradients: list[tf.Tensor], scale: tf.Tensor | None) -> list[tf.Tensor]:
    """The gradients divided by what the loss was multiplied by."""
    if scale is None:
        return gradients
    return [each / tf.cast(scale, each.dtype) for each in gradients]
