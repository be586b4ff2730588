"""Where the samples of a run meet, and which layer brings them together, seen in a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._regions import interactions_in
from keras_pergrad.runs import Run, Traced
from keras_pergrad.sites import Layouts, Trace, is_known, prime_for


@dataclass(frozen=True)
class Meeting:
    """An operation in which samples meet, or are not certain not to.

    Attributes:
        operation: the operation.
        layer: the innermost that makes it, if one does.
        name: of the operation, within that layer.
        of_forward: whether it is of the forward pass, or of the loss.
        certain: whether all is known of what the operation does and is given.
    """

    operation: tf.Operation
    layer: keras.Layer | None
    name: str
    of_forward: bool
    certain: bool


class PrimeTrace:
    """A run traced with a prime number of samples, by which their axes are known; nothing is run.

    Args:
        run: the run.
        sizes: those of axes that occur in it, beside those of its data and weights.

    Attributes:
        prime: the number of samples.
        traced: the run.
    """

    def __init__(self, run: Run, sizes: Iterable[int] = ()):
        self._made = _Made()
        seen = {*sizes}
        seen |= {size for weight in run.weights for size in weight.shape if size}
        seen |= {size for leaf in run.batch.leaves for size in leaf.shape if size}
        self.prime = prime_for(seen)
        with _keras.calls_through(_keras.layers_of(run.model), self._made.note):
            self.traced: Traced = run.traced_at(self.prime)

    def meetings(self) -> list[Meeting]:
        """Where samples meet, in the order of the operations."""
        trace, layouts = Trace(self.traced.operations), Layouts(self.prime)
        of_forward = {id(each) for each in self.traced.operations[: self.traced.forward]}
        return [
            Meeting(
                each,
                self.layer_of(each),
                self._name(each),
                id(each) in of_forward,
                is_known(each) and _are_known(each.inputs, layouts),
            )
            for each in interactions_in(self.traced, trace, layouts)
        ]

    def layer_of(self, operation: tf.Operation) -> keras.Layer | None:
        """The innermost layer whose call made an operation."""
        return self._made.by(operation)

    def _name(self, operation: tf.Operation) -> str:
        """Without the scopes around the layer, which a graph numbers in its own way."""
        layer, parts = self.layer_of(operation), operation.name.split("/")
        scopes = [k for k, part in enumerate(parts[:-1]) if layer and _is_of(part, layer.name)]
        return "/".join(parts[scopes[-1] + 1 :]) if scopes else operation.name


def _are_known(tensors: Iterable[tf.Tensor], layouts: Layouts) -> bool:
    """Whether it is known how samples lie on all that bear them."""
    return all(layouts.of(each) is not None for each in tensors if layouts.bears_samples(each))


def _is_of(scope: str, name: str) -> bool:
    """Whether a scope is that of a name, or numbered after it."""
    rest = scope.removeprefix(name)
    return scope.startswith(name) and (not rest or rest.removeprefix("_").isdecimal())


class _Made:
    """Which layer's call made an operation of a graph."""

    def __init__(self) -> None:
        self._innermost: dict[int, keras.Layer] = {}

    def note(self, layer: keras.Layer, call: Callable, args: tuple, kwargs: dict) -> Any:
        """Calls the layer, and notes what it adds to the graph."""
        graph = tf.compat.v1.get_default_graph()
        begin = len(graph.get_operations())
        result = call(*args, **kwargs)
        for operation in graph.get_operations()[begin:]:
            self._innermost.setdefault(id(operation), layer)
        return result

    def by(self, operation: tf.Operation) -> keras.Layer | None:
        """The innermost layer whose call made it."""
        return self._innermost.get(id(operation))
