"""Chunks that fit a memory budget, predicted from one traced sample before anything is run."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad._stacking import stacked_map
from keras_pergrad.engines._trace import (
    Body,
    expect_no_python,
    expect_no_side_effects,
    expect_weights_seen,
    note_ignored_samples,
    refusing,
    trace,
)
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.gradients import Block, Chunked
from keras_pergrad.runs import Run

# Stacked operations copy: patches of convolutions, transposed operands, the zeroed last chunk. Seen
# on a convolutional model: twice the tensors of the graph.
_STACKING = 2


def gradient_bytes(run: Run) -> int:
    """Bytes of the gradients of one sample."""
    return sum(weight.shape.num_elements() * weight.dtype.size for weight in run.weights)


def plan_chunks(run: Run, body: Body, engine: str, budget: int) -> Chunked:
    """`body` vectorized over samples, in chunks whose tensors fit `budget` bytes.

    Raises:
        UnsupportedError: one sample cannot be traced, or runs Python code of its own.
    """
    if not run.batch.is_dense:
        raise UnsupportedError(
            f"engine={engine!r} cannot stack ragged or sparse rows. Use engine='loop', or pad the "
            f"rows. Received: engine={engine!r} and a ragged or sparse leaf."
        )
    graph = trace(body, engine)
    expect_no_python(graph, engine)
    expect_no_side_effects(graph)
    expect_weights_seen(graph, run)
    note_ignored_samples(run, graph)

    def rows(indices: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if indices.shape[0] == 0:
            return no_rows(run)
        # Of no sample, TensorFlow's stacked operations take the shapes wrongly.
        if indices.shape[0] is None and not _keras.under_xla():
            return tf.cond(tf.size(indices) > 0, lambda: some(indices), lambda: no_rows(run))
        return some(indices)

    def some(indices: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with refusing(engine):
            losses, gradients = stacked_map(body, indices)
        pairs = zip(gradients, run.weights, strict=True)
        return losses, [tf.ensure_shape(g, [None, *weight.shape]) for g, weight in pairs]

    compiled = _keras.compiled(rows) if tf.executing_eagerly() else rows

    def find(indices: tf.Tensor) -> Block:
        with refusing(engine, running=tf.executing_eagerly()):
            return Block.written_out(indices, *compiled(indices))

    blocks = Chunked(find, run.size, stacked_bytes(graph), budget)
    run.in_chunks = blocks.in_chunks
    return blocks


def stacked_bytes(graph: tf.Graph) -> int:
    """Bytes of all tensors that depend on the sample: what vectorizing multiplies by its number.

    An upper bound, as if nothing were freed before the end. Unknown sizes count as one.
    """
    reached = _keras.depending_on(graph.inputs[:1], graph.get_operations())
    return _STACKING * sum(_bytes(each.deref()) for each in reached)


def _bytes(tensor: tf.Tensor) -> int:
    if tensor.shape.rank is None or tensor.dtype.size is None:
        return 0
    count = 1
    for size in tensor.shape:
        count *= size or 1
    return count * tensor.dtype.size


def no_rows(run: Run) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The losses and gradients of no sample."""
    gradients = [tf.zeros([0, *weight.shape], weight.dtype) for weight in run.weights]
    return tf.zeros([0], run.loss_dtype), gradients
