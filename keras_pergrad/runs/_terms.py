"""Terms of the loss that no sample owns: regularizers, and `add_loss` of no data."""

from __future__ import annotations

import keras
import tensorflow as tf


def depending_on(source: tf.Tensor, graph: tf.Graph) -> set:
    """References of all tensors of a graph that depend on `source`."""
    reached = {source.ref()}
    for operation in graph.get_operations():
        if any(tensor.ref() in reached for tensor in operation.inputs):
            reached.update(tensor.ref() for tensor in operation.outputs)
    return reached


def owned(terms: list[tf.Tensor], free: list[bool]) -> list[tf.Tensor]:
    """The terms, with zero in the place of those that depend on no data."""
    return [tf.zeros_like(t) if f else t for t, f in zip(terms, free, strict=True)]


def overrides_compute_loss(model: keras.Model) -> bool:
    """Whether the user's own code computes the loss, and decides what it takes into it."""
    return type(model).compute_loss is not keras.Model.compute_loss
