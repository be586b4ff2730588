"""Two-dimensional convolutions: transposed ones, depthwise ones, and those in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.gradients import Convolved, Factor, Materialized
from keras_pergrad.sites._site import Site
from keras_pergrad.sites.rules._inner import inner_convolution


class _Geometry(NamedTuple):
    """How a filter slides: its size, strides, dilations, and the zeros around the image."""

    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    zeros: list[list[int]]


def convolution(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`Conv2D`, and `Conv2DBackpropInput` in which image and gradient change places."""
    transposed = site.operation.type == "Conv2DBackpropInput"
    data, met = 2 if transposed else 0, site.met.shape
    if not _samples_come_first(site, data):
        return None
    image, right = site.operation.inputs[data], gradient
    if transposed:
        image, right = right, image
    found = _convolved(site, site.operation.node_def, image, right, met)
    if found is None or image.shape[-1] == met[2]:
        return found
    return _in_groups(found, image.shape[-1] // met[2], met)


def depthwise_convolution(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`DepthwiseConv2dNative`: as many groups as channels."""
    if not _samples_come_first(site, 0):
        return None
    image, met = site.operation.inputs[0], site.met.shape
    found = _convolved(site, site.operation.node_def, image, gradient, met)
    return None if found is None else _in_groups(found, met[2], met)


def called_convolution(site: Site, gradient: tf.Tensor) -> Factor | None:
    """A function that is one `Conv2D`: Keras compiles its convolutions in groups, for the CPU."""
    image, met = site.operation.inputs[0], site.met.shape
    node = inner_convolution(_keras.called_function(site.operation), lines=met.rank == 3)
    if node is None or not _samples_come_first(site, 0):
        return None
    if met.rank == 3:
        image, gradient = tf.expand_dims(image, 1), tf.expand_dims(gradient, 1)
        met = tf.TensorShape([1, *met])
    found = _convolved(site, node, image, gradient, met)
    if found is None or image.shape[-1] == met[2]:
        return found if site.met.shape.rank == 4 else None
    return _in_groups(found, image.shape[-1] // met[2], site.met.shape)


def _samples_come_first(site: Site, data: int) -> bool:
    """Whether samples are on the first axis of what the filter meets and of what it gives."""
    layouts = site.layouts[data], site.layout
    return site.operand == 1 and not any(each is None or each.axis for each in layouts)


def _convolved(
    site: Site, node: Any, image: tf.Tensor, right: tf.Tensor, met: tf.TensorShape
) -> Convolved | None:
    """As if there were no groups. None for another data format, or sizes that are not known.

    It gives the samples in the order in which it takes them.
    """
    if node.attr["data_format"].s != b"NHWC" or None in [*image.shape[1:], *right.shape[1:], *met]:
        return None
    geometry = _geometry(node, image.shape, right.shape, met)
    images = _images(tf.pad(image, geometry.zeros), site.layout)
    return Convolved(images, _images(right, site.layout), *geometry[:3])


def _in_groups(whole: Convolved, groups: int, shape: Sequence[int]) -> Factor:
    """Each group of inputs with its group of outputs: small filters, which are written out."""
    right = whole.by_position()
    right = tf.reshape(right, [-1, right.shape[1], groups, right.shape[2] // groups])
    rows = []
    for left in whole.shifts():
        left = tf.reshape(left, [-1, left.shape[1], groups, left.shape[2] // groups])
        rows.append(tf.einsum("btgi,btgo->bigo", left, right))
    values = tf.reshape(tf.stack(rows, axis=1), [-1, *shape])
    return Materialized(tf.cast(values, whole.right.dtype))


def _geometry(
    node: Any, image: tf.TensorShape, right: tf.TensorShape, met: tf.TensorShape
) -> _Geometry:
    window = tuple(met[:2])
    strides = tuple(node.attr["strides"].list.i[1:3])
    dilations = tuple(node.attr["dilations"].list.i[1:3])
    padding = node.attr["padding"].s
    zeros = [[0, 0] for _ in range(4)]
    if padding == b"EXPLICIT":
        flat = node.attr["explicit_paddings"].list.i
        zeros = [list(flat[k : k + 2]) for k in range(0, 8, 2)]
    for k in range(2):
        reach = (right[1 + k] - 1) * strides[k] + (window[k] - 1) * dilations[k] + 1
        missing = max(reach - image[1 + k], 0)
        if padding == b"SAME":
            zeros[1 + k] = [missing // 2, missing - missing // 2]
    return _Geometry(window, strides, dilations, zeros)


def _images(value: tf.Tensor, layout: object) -> tf.Tensor:
    """`[B, n, H, W, C]`: the images of each sample."""
    samples = layout.by_sample(value)  # type: ignore[attr-defined]
    shape = samples.shape
    return tf.reshape(samples, [-1, shape[1] * shape[2], *shape[3:]])
