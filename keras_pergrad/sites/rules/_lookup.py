"""Rows of a table, looked up by the samples' ids."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.gradients import Factor, Gathered, View, Viewed
from keras_pergrad.sites._site import Site


def lookup(site: Site, gradient: tf.Tensor) -> Factor | None:
    """`GatherV2` on the first axis of a table."""
    axis = tf.get_static_value(site.operation.inputs[2])
    if site.operand != 0 or axis != 0 or site.operation.get_attr("batch_dims") != 0:
        return None
    ids, table = site.samples_of(1), site.met.shape.as_list()
    positions = ids.shape[1:].num_elements()
    width = 1
    for size in table[1:]:
        width *= size
    if positions is None:
        return None
    values = tf.reshape(site.layout.by_sample(gradient), [-1, positions, width])
    factor = Gathered(tf.reshape(ids, [-1, positions]), values, table[0])
    if len(table) == 2:
        return factor
    return Viewed(factor, View.reshape(tuple(table), (table[0], width)))
