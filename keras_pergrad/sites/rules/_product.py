"""Matrix products: the gradient is the product of the two operands, `Xᵀ G`."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Factor, Product, View, Viewed
from keras_pergrad.sites._layout import Layout
from keras_pergrad.sites._site import Site


def matrix_product(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`MatMul`, the weight on either side, either side transposed."""
    names = ("transpose_a", "transpose_b")
    turned = [site.operation.get_attr(name) for name in names]
    return _product(site, gradient, turned)


def batched_matrix_product(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`BatchMatMulV2` with one weight matrix for all of the batch."""
    shape = site.met.shape
    if any(size != 1 for size in shape[:-2]):
        return None
    turned = [site.operation.get_attr(name) for name in ("adj_x", "adj_y")]
    factor = _product(site, gradient, turned)
    if factor is None or shape.rank == 2:
        return factor
    return Viewed(factor, View.reshape(tuple(shape), tuple(shape[-2:])))


def _product(site: Site, gradient: tf.Tensor, turned: list[bool]) -> Factor | None:
    """`C = W D` or `C = D W`: rows of positions of the data, and of the gradient, face to face."""
    weight_first = site.operand == 0
    data = 1 - site.operand
    layout = site.layouts[data]
    if layout is None:
        return None
    # A position is a row of D where the weight comes second, else a column.
    features_first = turned[data] != weight_first
    rows = _positions(site.operation.inputs[data], layout, features_first)
    columns = _positions(gradient, site.layout, weight_first)
    if rows is None or columns is None:
        return None
    left, right = (columns, rows) if weight_first else (rows, columns)
    return Product(right, left) if turned[site.operand] else Product(left, right)


def _positions(value: tf.Tensor, layout: Layout, features_first: bool) -> tf.Tensor | None:
    """`[B, T, features]`; None where samples are on the axis of the features."""
    rank = value.shape.rank
    if layout.axis == (rank - 2 if features_first else rank - 1):
        return None
    if features_first:
        value = tf.linalg.matrix_transpose(value)
        axis = rank - 2 if layout.axis == rank - 1 else layout.axis
        layout = Layout(axis, layout.outer, layout.inner)
    samples = layout.by_sample(value)
    features = samples.shape[-1]
    positions = samples.shape[1:-1].num_elements()
    if positions is None or features is None:
        return None
    return tf.reshape(samples, [-1, positions, features])
