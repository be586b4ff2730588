"""A sample's row of a batched run: what is its own, and what cannot be told apart."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import rows_of_attributes, tensors_held
from keras_pergrad.runs._leaves import leaves, map_leaves, take
from keras_pergrad.runs._tape import LossAndGradients

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run

_CONSTANT = ("Const", "Placeholder")


def row(run: Run, index: tf.Tensor, *, unroll: bool) -> LossAndGradients:
    """The loss of sample `index` within the batched run, and its gradients: a Jacobian row."""
    free = run.free_terms

    def loss_of() -> tf.Tensor:
        told = _parts.replay(run)
        one = functools.partial(take, indices=tf.reshape(index, [1]))
        before, graph = tensors_held(run.model), RowGraph(run.batch.x)
        with told.of(None):
            y_pred, terms = _parts.forward(run, run.batch.given(graph.x), unroll=unroll)
        size = run.size if isinstance(run.size, int) else None
        graph.forward_ends(y_pred, size)
        rows_of_attributes(run.model, before, size, one)
        with told.of(index):
            y_pred = map_leaves(lambda leaf: _keras.cut(leaf, one), y_pred)
            rows = [row_of_term(t, index, f) for t, f in zip(terms, free, strict=True)]
            graph.loss_begins()
            loss = _parts.loss(run, run.batch.row(index), y_pred, rows, alone=True)
        graph.expect_loss_of_rows(size)
        told.expect_the_end()
        return loss

    return _parts.gradients(run, loss_of, run.gradient_scale)


class RowGraph:
    """The graph in which the batch is run and the loss of one row computed, phase by phase.

    Args:
        x: the inputs of the batch.

    Attributes:
        x: the same inputs, to be given to the forward pass.
    """

    def __init__(self, x: Any):
        self._graph = tf.compat.v1.get_default_graph()
        self.x = map_leaves(tf.identity, x)
        self._start = self._count()
        self._forward = self._loss = 0

    def forward_ends(self, y_pred: Any, size: int | None) -> None:
        """Marks the end of the forward pass.

        Raises:
            UnsupportedError: a prediction has not one row a sample.
        """
        self._forward = self._count()
        reached = _keras.depending_on(leaves(self.x), self._graph.get_operations())
        for leaf in leaves(y_pred):
            rows = leaf.shape.rank and (size is None or leaf.shape[0] in (None, size))
            if rows and leaf.ref() in reached:
                continue
            raise UnsupportedError(
                "engine='jacobian' takes each sample's row of the predictions, which need the "
                "samples on their first axis and have to depend on the inputs, not on weights or "
                f"replayed noise alone. Use engine='loop'. Expected: [{size or 'B'}, ...]. "
                f"Received: a prediction of shape {leaf.shape}."
            )

    def loss_begins(self) -> None:
        """Marks the end of the cutting, after which everything is one row's."""
        self._loss = self._count()

    def expect_loss_of_rows(self, size: int | None) -> None:
        """Refuses a loss that reads something of the batch's forward pass past the cutting.

        Raises:
            UnsupportedError: names the tensor.
        """
        operations = self._graph.get_operations()
        forward = {id(operation) for operation in operations[self._start : self._forward]}
        for operation in operations[self._loss :]:
            for tensor in operation.inputs:
                shape = tensor.shape
                rows = shape.rank is None or (shape.rank > 0 and shape[0] in (None, size))
                if id(tensor.op) in forward and tensor.op.type not in _CONSTANT and rows:
                    raise UnsupportedError(
                        "The loss reads a tensor of the forward pass that is neither a prediction "
                        "nor kept on the model, so that its row of a sample cannot be taken. Give "
                        "it back from `call`, or use engine='loop'. "
                        f"Received: {tensor.name!r} of shape {shape} for engine='jacobian'."
                    )

    def _count(self) -> int:
        return len(self._graph.get_operations())


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
            f"Received: a scalar named {getattr(term, 'name', 'add_loss')!r} "
            "for engine='jacobian'.",
            causes=("summed_add_loss",),
        )
    return tf.gather(term, tf.reshape(index, [1]))
