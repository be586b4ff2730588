"""Two-dimensional convolutions, transposed ones, and depthwise ones."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_pergrad.gradients import Convolved, Factor, Materialized
from keras_pergrad.sites._site import Site


class _Geometry(NamedTuple):
    """How a filter slides: its size, strides, dilations, and the zeros around the image."""

    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    zeros: list[list[int]]


def convolution(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`Conv2D`, and `Conv2DBackpropInput` in which image and gradient change places."""
    if site.operand != 1:
        return None
    transposed = site.operation.type == "Conv2DBackpropInput"
    data = 2 if transposed else 0
    pair = [(site.operation.inputs[data], site.layouts[data]), (gradient, site.layout)]
    if any(layout is None or layout.axis for _, layout in pair):
        return None
    (image, of_image), (right, of_right) = reversed(pair) if transposed else pair
    geometry = _geometry(site, image, right)
    if geometry is None or image.shape[-1] != site.met.shape[2]:  # groups: left to `each`
        return None
    images = _images(tf.pad(image, geometry.zeros), of_image)
    return Convolved(images, _images(right, of_right), *geometry[:3])


def depthwise_convolution(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`DepthwiseConv2dNative`: small filters, so that each sample's is written out."""
    layout = site.layouts[0]
    if site.operand != 1 or layout is None or layout.axis or site.layout.axis:
        return None
    image = site.operation.inputs[0]
    geometry = _geometry(site, image, gradient)
    if geometry is None:
        return None
    window, channels, times = geometry.window, site.met.shape[2], site.met.shape[3]
    images = _images(tf.pad(image, geometry.zeros), layout)
    right = _images(gradient, site.layout)
    # One "filter" from each channel alone to that channel's own outputs.
    one = Convolved(images, right, *geometry[:3])
    outputs = tf.reshape(one._right(), [-1, one._positions(), channels, times])
    rows = [tf.einsum("btc,btcm->bcm", left, outputs) for left in one._shifts()]
    values = tf.reshape(tf.stack(rows, axis=1), [-1, *window, channels, times])
    return Materialized(tf.cast(values, gradient.dtype))


def _geometry(site: Site, image: tf.Tensor, right: tf.Tensor) -> _Geometry | None:
    """None for another data format, or sizes that are unknown while tracing."""
    operation = site.operation
    sizes = [*image.shape[1:], *right.shape[1:], *site.met.shape]
    if operation.get_attr("data_format") != b"NHWC" or None in sizes:
        return None
    window = tuple(site.met.shape[:2])
    strides = tuple(operation.get_attr("strides")[1:3])
    dilations = tuple(operation.get_attr("dilations")[1:3])
    padding = operation.get_attr("padding")
    zeros = [[0, 0] for _ in range(4)]
    if padding == b"EXPLICIT":
        flat = operation.get_attr("explicit_paddings")
        zeros = [list(flat[k : k + 2]) for k in range(0, 8, 2)]
    for k in range(2):
        reach = (right.shape[1 + k] - 1) * strides[k] + (window[k] - 1) * dilations[k] + 1
        missing = max(reach - image.shape[1 + k], 0)
        if padding == b"SAME":
            zeros[1 + k] = [missing // 2, missing - missing // 2]
    return _Geometry(window, strides, dilations, zeros)


def _images(value: tf.Tensor, layout: object) -> tf.Tensor:
    """`[B, n, H, W, C]`: the images of each sample."""
    samples = layout.by_sample(value)  # type: ignore[attr-defined]
    shape = samples.shape
    return tf.reshape(samples, [-1, shape[1] * shape[2], *shape[3:]])
