"""The terms of the loss that no sample owns: which ones they are, and their gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._tape import differentiate
from keras_pergrad.runs._terms import no_penalties, owned, penalties
from keras_pergrad.runs._whole import loss_with

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


def which_are_free(run: Run) -> list[bool]:
    """Which terms depend on no data, by tracing one sample and following its index."""
    if not run.terms:
        return []

    def terms_of(index: tf.Tensor) -> list[tf.Tensor]:
        with _parts.sandbox(run), _parts.replay(run).of(index):
            return _parts.forward(run, run.batch.row(index), unroll=False)[1]

    index = tf.TensorSpec([], tf.int32)
    with attributes_kept(run.model):
        graph = _keras.compiled(terms_of).get_concrete_function(index).graph
    reached = _keras.depending_on(graph.inputs[:1], graph.get_operations())
    return [tensor.ref() not in reached for tensor in graph.outputs]


def batch_term(run: Run) -> list[tf.Tensor]:
    """The gradient of those terms, each multiplied by what the loss does with it."""
    if not run.penalized and not any(run.free_terms):
        return [tf.zeros_like(weight) for weight in run.weights]
    shares = _shares_of_the_loss(run)

    def total() -> tf.Tensor:
        free = []
        if any(run.free_terms):
            with _parts.replay(run).of(None):
                free = _free(run, _parts.forward(run, run.batch, unroll=False)[1])
        pairs = zip(shares, [*free, *penalties(run)], strict=True)
        return tf.add_n([tf.reduce_sum(s * tf.cast(t, s.dtype)) for s, t in pairs])

    return differentiate(total, run.model, run.variables, run.state)[1]


def _shares_of_the_loss(run: Run) -> list[tf.Tensor]:
    """The derivative of the loss in each term: 0 where the user's code leaves it out."""
    with tf.GradientTape() as tape:
        stubs = no_penalties(run)
        terms = owned(run.terms, run.free_terms)
        tape.watch([stubs, terms])
        loss = loss_with(run, run.y_pred, terms, stubs)
    return tape.gradient(loss, [*_free(run, terms), *stubs], unconnected_gradients="zero")


def _free(run: Run, terms: list[tf.Tensor]) -> list[tf.Tensor]:
    return [term for term, free in zip(terms, run.free_terms, strict=True) if free]
