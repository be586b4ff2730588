"""Where the samples of a run meet, and which layer brings them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._regions import interactions_in
from keras_pergrad.runs import Run, Traced
from keras_pergrad.sites import Layouts, Trace, prime_for


@dataclass(frozen=True)
class Meeting:
    """An operation in which samples meet, and the innermost layer that makes it, if one does."""

    operation: tf.Operation
    layer: keras.Layer | None


def find_meetings(run: Run, sizes: Iterable[int] = ()) -> list[Meeting]:
    """Where samples of a run meet, seen in a trace; nothing is run.

    Args:
        run: the run.
        sizes: those of axes that occur in it.
    """
    made = _Made()
    with _keras.calls_through(_keras.layers_of(run.model), made.note):
        prime, traced = prime_traced(run, sizes)
    found = interactions_in(traced, Trace(traced.operations), Layouts(prime))
    return [Meeting(operation, made.by(operation)) for operation in found]


def prime_traced(run: Run, sizes: Iterable[int] = ()) -> tuple[int, Traced]:
    """A prime number of samples, and the run traced with as many.

    Args:
        run: the run.
        sizes: those of axes that occur in it, beside those of its data and weights.
    """
    seen = {*sizes}
    seen |= {size for weight in run.weights for size in weight.shape if size}
    seen |= {size for leaf in run.batch.leaves for size in leaf.shape if size}
    prime = prime_for(seen)
    return prime, run.traced_at(prime)


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
