"""How far what is made of a weight gets on its way to the loss, read off a trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import Traced

Kind = Literal["unread", "dropped", "stopped", "whole", "flat", "open"]
_STOPS = ("StopGradient", "PreventGradient")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")


@dataclass(frozen=True)
class Way:
    """The way from a weight to the loss.

    Attributes:
        kind: `"unread"` where nothing uses the weight; `"dropped"` where what is made of it does
            not reach the loss; `"stopped"` by a `stop_gradient`; `"whole"` where whole numbers are
            made of it; `"flat"` where an operation has no derivative; `"open"` to a gradient.
        operation: the first that ends it, or None.
        branches: the first conditional, where every way goes through one.
    """

    kind: Kind
    operation: tf.Operation | None = None
    branches: tf.Operation | None = None


def way_to_loss(traced: Traced, weight: tf.Tensor) -> Way:
    """The way of a weight's value to the loss.

    A gradient flows through an operation if TensorFlow gives it one in that operand. That is asked
    of each operation on the way, by itself.
    """
    used = any(tensor is weight for o in traced.operations for tensor in o.inputs)
    if not used:
        return Way("unread")
    on_way = _between(weight, traced)
    if not on_way:
        return Way("dropped")
    conditional = [each for each in on_way if each.type in _BRANCHES]
    around = [each for each in on_way if each.type not in _BRANCHES]
    passes = traced.loss.ref() in _keras.depending_on([weight], around)
    branches = None if passes or not conditional else conditional[0]
    kind, ends = _first_end(weight, on_way, traced.loss)
    return Way(kind, ends, branches)


def _between(weight: tf.Tensor, traced: Traced) -> list[tf.Operation]:
    """The operations that depend on a weight and that the loss depends on, in their order."""
    wanted, found = {traced.loss.ref()}, []
    after = _keras.depending_on([weight], traced.operations)
    for operation in reversed(traced.operations):
        if any(each.ref() in wanted and each.ref() in after for each in operation.outputs):
            wanted.update(each.ref() for each in operation.inputs)
            found.append(operation)
    return found[::-1]


def _first_end(
    weight: tf.Tensor, on_way: Sequence[tf.Operation], loss: tf.Tensor
) -> tuple[Kind, tf.Operation | None]:
    """The first operation that lets no gradient through, if none comes through another way."""
    reached, ends = {weight.ref()}, []
    for operation in on_way:
        operands = [each for each in operation.inputs if each.ref() in reached]
        through = [out for out in operation.outputs if _flows(out, operands)]
        reached.update(each.ref() for each in through)
        if operands and not through:
            ends.append(operation)
    if loss.ref() in reached or not ends:
        return "open", None
    return _kind(ends[0]), ends[0]


def _kind(operation: tf.Operation) -> Kind:
    if operation.type in _STOPS:
        return "stopped"
    return "flat" if all(_real(each) for each in operation.outputs) else "whole"


def _flows(output: tf.Tensor, operands: Iterable[tf.Tensor]) -> bool:
    """Whether an operation's output has a gradient in one of its operands, zero or not."""
    operands = [each for each in operands if _real(each)]
    if not operands or not _real(output):
        return False
    inputs = list(output.op.inputs)
    try:
        with output.graph.as_default():
            found = tf.gradients(output, operands, stop_gradients=inputs)
    except (LookupError, ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return True  # a custom gradient, or one that only the tape can make
    return any(each is not None for each in found)


def _real(tensor: tf.Tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype == tf.variant
