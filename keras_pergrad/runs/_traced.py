"""A run that is traced at another number of samples, and not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._leaves import leaves, map_leaves
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._terms import owned

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


@dataclass(frozen=True)
class Traced:
    """A run that was traced and not run.

    Attributes:
        operations: in their order.
        weights: in it, in the order of the run's variables.
        data: what it was given as a batch.
        loss: its scalar.
        forward: how many of the operations are the forward pass.
        rewritten: the numbers of the variables that the forward pass assigns.
        losses_of_samples: whether each loss that Keras reduces has the samples on its first axis.
    """

    operations: Sequence[tf.Operation]
    weights: list[tf.Tensor]
    data: list[tf.Tensor]
    loss: tf.Tensor
    forward: int
    rewritten: set[int]
    losses_of_samples: bool


def traced_at(run: Run, size: int) -> Traced:
    """What the run computes, traced with `size` samples."""
    free = run.free_terms
    inside: dict[str, Any] = {"losses_of_samples": True}

    def hear(reduction: _keras.Reduction) -> tf.Tensor:
        shape = tf.convert_to_tensor(reduction.values).shape
        inside["losses_of_samples"] &= not shape.rank or shape[0] == size
        return reduction.by_keras()

    def loss(data: Any, values: list[tf.Tensor]) -> tf.Tensor:
        given = [(v, value) for (v, _), value in zip(run.state, values, strict=True)]
        box = Sandbox(given, run.variables)
        with attributes_kept(run.model), box, _keras.intercept(reduce=hear):
            y_pred, terms = _parts.forward(run, Batch(*data), unroll=True)
            inside["forward"] = len(tf.compat.v1.get_default_graph().get_operations())
            total = _parts.loss(run, Batch(*data), y_pred, owned(terms, free))
        versions = box.versions(run.variables)
        inside["rewritten"] = {k for k, each in enumerate(versions) if len(each) > 1}
        inside["weights"] = [each[0] for each in versions]
        inside["data"] = leaves(data)
        return total

    with tf.init_scope():  # traced inside another graph, it would keep that from being freed
        graph = _keras.compiled(loss).get_concrete_function(*_specs(run, size)).graph
    _keras.forget_custom_gradients(graph)
    found = dict(inside)
    inside.clear()
    return Traced(graph.get_operations(), loss=graph.outputs[0], **found)


def _specs(run: Run, size: int) -> tuple[Any, list[tf.TensorSpec]]:
    """The shapes of a batch of `size` samples, and of the state."""
    data = map_leaves(
        lambda leaf: tf.TensorSpec([size, *leaf.shape[1:]], leaf.dtype),
        (run.batch.x, run.batch.y, run.batch.sample_weight),
    )
    return data, [tf.TensorSpec(value.shape, value.dtype) for _, value in run.state]
