"""`loop`: one sample at a time. Slow and obvious: the oracle of the others."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.engines._alone import expect_samples_alone
from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._memory import gradient_bytes, no_rows
from keras_pergrad.engines._trace import (
    expect_no_side_effects,
    expect_weights_seen,
    note_ignored_samples,
    refusing,
    trace,
)
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.gradients import Block, Chunked
from keras_pergrad.runs import Run


class Loop(Engine):
    """Runs every sample as a batch of one: eagerly in a Python loop, in a graph in `tf.map_fn`."""

    name = "loop"
    definition = "isolated"

    def blocks(self, run: Run, memory_budget: int) -> Chunked:
        expect_samples_alone(run, self.name)
        graph = _traced(run)
        if graph is not None:
            expect_no_side_effects(graph)
            expect_weights_seen(graph, run)
            note_ignored_samples(run, graph)

        def find(indices: tf.Tensor) -> Block:
            return Block.written_out(indices, *one_by_one(run, indices))

        return Chunked(find, run.size, gradient_bytes(run), memory_budget)


def one_by_one(run: Run, indices: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Losses `[b]` and gradients `[b, *weight.shape]` of the samples at `indices [b]`."""
    if indices.shape[0] == 0:
        return no_rows(run)
    if tf.executing_eagerly():
        with refusing(Loop.name):
            results = [run.sample(index, unroll=False) for index in indices]
        losses, gradients = zip(*results, strict=True)
        return tf.stack(losses), [tf.stack(each) for each in zip(*gradients, strict=True)]
    scalar = tf.TensorSpec([], run.loss_dtype)
    weights = [tf.TensorSpec(weight.shape, weight.dtype) for weight in run.weights]
    return tf.map_fn(
        lambda index: run.sample(index, unroll=False),
        indices,
        fn_output_signature=(scalar, weights),
        parallel_iterations=1,
    )


def _traced(run: Run) -> tf.Graph | None:
    """The graph of one sample, or None for a model that runs eagerly alone."""
    try:
        return trace(lambda index: run.sample(index, unroll=False), Loop.name)
    except UnsupportedError:
        if tf.executing_eagerly():
            return None
        raise
