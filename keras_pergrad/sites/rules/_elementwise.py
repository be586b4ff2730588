"""Elementwise operations: the weight is repeated over samples and positions, and so adds up."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Factor, Materialized
from keras_pergrad.sites._site import Site


def addition(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`x + w`, and a bias."""
    if site.operation.type == "BiasAdd" and site.operation.get_attr("data_format") != b"NHWC":
        return None
    return _collected(site, gradient)


def subtraction(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`w - x` or `x - w`."""
    return _collected(site, gradient if site.operand == 0 else -gradient)


def multiplication(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`x ∘ w`."""
    return _collected(site, gradient * site.operation.inputs[1 - site.operand])


def division(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`w / x`, or `x / w` with the derivative `-y / w`."""
    other = site.operation.inputs[1]
    local = gradient / other if site.operand == 0 else -gradient * site.output / other
    return _collected(site, local)


def broadcast(site: Site, gradient: tf.Tensor) -> Factor | None:
    """A weight repeated for every sample, as a class token is; `Tile` only of axes of length 1."""
    pairs = zip(site.met.shape[::-1], site.output.shape[::-1], strict=False)
    if site.operand or any(a not in (1, b) for a, b in pairs):
        return None
    return _collected(site, gradient)


def _collected(site: Site, gradient: tf.Tensor) -> Factor | None:
    """Sums `gradient` over everything that the weight was repeated for but the samples."""
    layout, rank = site.layout, gradient.shape.rank
    shape = [1] * (rank - site.met.shape.rank) + site.met.shape.as_list()
    if shape[layout.axis] != 1:
        return None
    kept = [size for axis, size in enumerate(shape) if axis != layout.axis]
    summed = [3 + axis for axis, size in enumerate(kept) if size == 1]
    value = tf.reduce_sum(layout.by_sample(gradient), axis=[1, 2, *summed])
    return Materialized(tf.reshape(value, [-1, *site.met.shape]))
