"""Sites: the places of a computation where a weight meets samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients import View
from keras_pergrad.sites._layout import Layout

_VIEWS = frozenset("Cast EnsureShape ExpandDims Identity Neg Reshape Squeeze Transpose".split())


class NoSiteError(Exception):
    """Why the sample gradients of a weight cannot be read where it meets the samples."""


@dataclass(frozen=True)
class Site:
    """An operation whose operand number `operand` is a weight, or made of it, and meets samples.

    Attributes:
        operation: in the graph that is run.
        operand: which of its inputs comes from the weight.
        layouts: of its inputs; None where one bears no samples.
        layout: of its output.
        weight: the weight itself, as often as it was read.
    """

    operation: tf.Operation
    operand: int
    layouts: tuple[Layout | None, ...]
    layout: Layout
    weight: tuple[tf.Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return tuple(self.weight[0].shape)

    @property
    def output(self) -> tf.Tensor:
        """What the operation gives."""
        return self.operation.outputs[0]

    @property
    def place(self) -> str:
        """The operation and its name, which begins with the scopes of the layers it stands in."""
        return f"{self.operation.type} at {self.operation.name!r}"

    @property
    def met(self) -> tf.Tensor:
        """What the samples meet: the weight, or what was made of it."""
        return self.operation.inputs[self.operand]

    def samples_of(self, operand: int) -> tf.Tensor:
        """An operand that bears samples, `[B, outer, inner, ...]`."""
        layout = self.layouts[operand]
        if layout is None:
            raise NoSiteError(f"operand {operand} of {self.place} bears no samples")
        return layout.by_sample(self.operation.inputs[operand])

    def view(self) -> tuple[View, int] | None:
        """From the weight to what met the samples, if only its entries' places or sign changed."""
        shape = self.shape
        view, sign = View.reshape(shape, shape), 1
        for operation in self._made_by():
            if operation is None:
                return None
            sign *= -1 if operation.type == "Neg" else 1
            after = tuple(operation.outputs[0].shape)
            if operation.type == "Transpose":
                order = tf.get_static_value(operation.inputs[1])
                if (
                    order is None
                    or view.after != view.before
                    or view.permutation != tuple(range(len(shape)))
                ):
                    return None
                view = View(shape, tuple(int(axis) for axis in order), after)
            else:
                view = View(view.before, view.permutation, after)
        return view, sign

    def _made_by(self) -> Sequence[tf.Operation | None]:
        """The operations between the weight and what was met, in order; None for another kind."""
        chain: list[tf.Operation | None] = []
        tensor = self.met
        while not any(tensor is each for each in self.weight):
            operation = tensor.op
            if operation.type not in _VIEWS:
                return [None]
            chain.append(operation)
            tensor = operation.inputs[0]
        return chain[::-1]
