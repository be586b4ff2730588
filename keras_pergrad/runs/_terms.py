"""Terms of the loss that no sample owns: regularizers, and `add_loss` of no data."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs._batch import leaves


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


def row_of_term(term: tf.Tensor, index: tf.Tensor, free: bool) -> tf.Tensor:
    """What one sample of a batched run gave to `add_loss`.

    Raises:
        UnsupportedError: the layer has reduced it over the batch.
    """
    if free:
        return tf.zeros_like(term)
    if term.shape.rank == 0:
        raise UnsupportedError(
            "A layer reduced its `add_loss` over the batch, so that no row of it belongs to a "
            "sample. Give `add_loss` one value a sample, or use engine='loop'. "
            f"Received: a scalar named {getattr(term, 'name', 'add_loss')!r} for engine='jacobian'."
        )
    return tf.gather(term, tf.reshape(index, [1]))


def expect_rows(y_pred: Any, size: int | None) -> None:
    """Refuses predictions without one row a sample, as far as tracing knows.

    Raises:
        UnsupportedError: the samples are not on the first axis.
    """
    for leaf in leaves(y_pred):
        if size is not None and (not leaf.shape.rank or leaf.shape[0] not in (None, size)):
            raise UnsupportedError(
                "engine='jacobian' takes each sample's row of the predictions, which need the "
                f"samples on their first axis. Use engine='loop'. Expected: [{size}, ...]. "
                f"Received: a prediction of shape {leaf.shape}."
            )
