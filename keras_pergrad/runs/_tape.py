"""Differentiating inside a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import PerGradError
from keras_pergrad.gradients import wide
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._scale import without_scale
from keras_pergrad.runs._state import State

LossAndGradients = tuple[tf.Tensor, list[tf.Tensor]]

CUT = "read, but every way to the loss is cut (stop_gradient, an integer, argmax)"
UNREAD = "never read in the forward pass"
UNTRACKED = (
    "the model does not track it, so that nothing trains it (made in `call`, or kept in a list "
    "that Keras does not see)"
)


def differentiate(
    loss_of: Callable[[], tf.Tensor],
    model: keras.Model,
    variables: list[keras.Variable],
    state: State,
    scale: tf.Tensor | None = None,
    unconnected: dict[str, str] | None = None,
) -> LossAndGradients:
    """The loss of a run, and its dense gradients in the values that `state` gives `variables`.

    Args:
        loss_of: runs the model; called in a sandbox.
        model: the model.
        variables: what to differentiate by.
        state: the values of all variables.
        scale: a factor on the loss before the backward pass, and off the gradients after it.
        unconnected: filled with path → reason for the variables that no gradient reaches.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        with attributes_kept(model), Sandbox(state, variables, tape) as box:
            loss = loss_of()
        scaled = loss if scale is None else loss * tf.cast(scale, loss.dtype)
    versions = box.versions(variables)
    parts = tape.gradient(scaled, versions)
    if unconnected is not None:
        unconnected.update(_reasons(variables, parts, box))
    gradients = [_total(part, each) for part, each in zip(parts, versions, strict=True)]
    return loss, without_scale(gradients, scale)


def differentiate_observed(
    loss_of: Callable[[], tf.Tensor],
    model: keras.Model,
    variables: list[keras.Variable],
    state: State,
    scale: tf.Tensor | None,
    unconnected: dict[str, str],
    observer: Observer,
) -> None:
    """As `differentiate`, in a graph, and with the gradients that an observer asks for, all in one.

    Args:
        loss_of, model, variables, state, scale, unconnected: as for `differentiate`.
        observer: is given the gradients at its tensors, zeros where there are none.
    """
    graph = tf.compat.v1.get_default_graph()
    _keras.never_freed(graph)
    start = len(graph.get_operations())
    given = [(variable, tf.identity(value)) for variable, value in state]
    values = {id(variable): value for variable, value in given}
    weights = [values[id(variable)] for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        with attributes_kept(model), Sandbox(given, variables, tape) as box:
            loss = loss_of()
        scaled = loss if scale is None else loss * tf.cast(scale, loss.dtype)
    operations = graph.get_operations()[start:]
    at = observer.choose(operations, [[weight] for weight in weights], len(operations))
    versions = box.versions(variables)
    parts, gradients = tape.gradient(scaled, [versions, at])
    unconnected.update(_reasons(variables, parts, box))
    totals = [_total(part, each) for part, each in zip(parts, versions, strict=True)]
    observer.gradients = [wide(each) for each in dense(gradients, at)]
    observer.scale = scale
    observer.totals = without_scale(totals, scale)


def dense(gradients: Sequence[Any], at: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The gradients at tensors as tensors of their shapes, zero where there is none."""
    found = [
        tf.zeros_like(tensor) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, tensor in zip(gradients, at, strict=True)
    ]
    for gradient, tensor in zip(found, at, strict=True):
        gradient.set_shape(tensor.shape)
    return found


def summed(loss: Any, size: int | tf.Tensor) -> tf.Tensor:
    """The scalar that a tape differentiates for a loss that is a vector: its sum.

    Raises:
        PerGradError: the loss is no floating-point number, or has not one row a sample.
    """
    if not isinstance(loss, tf.Tensor):
        raise PerGradError(
            "`compute_loss` has to return the loss as a tensor. "
            f"Received: {loss!r} of type {type(loss).__name__}."
        )
    if not loss.dtype.is_floating:
        raise PerGradError(
            "A loss has to be a floating-point tensor to have a gradient. "
            f"Received: a loss of dtype {loss.dtype.name}."
        )
    if loss.shape.rank == 0:
        return loss
    leading = loss.shape[0] if loss.shape.rank else None
    if isinstance(size, int) and leading is not None and leading != size:
        whose = "a sample run alone" if size == 1 else f"{size} samples"
        raise PerGradError(
            "A loss is one scalar, or has one row a sample, which Keras sums. Reduce it in "
            f"`compute_loss`. Expected shape () or ({size}, ...) for {whose}. "
            f"Received: shape {loss.shape}."
        )
    return tf.reduce_sum(loss)


def _reasons(
    variables: list[keras.Variable], parts: list[list[Any]], box: Sandbox
) -> dict[str, str]:
    return dict.fromkeys(sorted(box.untracked), UNTRACKED) | {
        variable.path: CUT if id(variable) in box.read else UNREAD
        for variable, part in zip(variables, parts, strict=True)
        if all(gradient is None for gradient in part)
    }


def _total(gradients: list[Any], versions: list[tf.Tensor]) -> tf.Tensor:
    dense = [tf.convert_to_tensor(each) for each in gradients if each is not None]
    return tf.add_n(dense) if dense else tf.zeros_like(versions[0])
