"""Traced graphs are freed: TensorFlow keeps two things that hold them for ever.

Traced, a custom gradient is registered under a name of its own in a table of the process, and
holds the tensors that it was traced with, and so the graph. Keras traces one for every mean over
samples. And a tape that is asked for the gradients at two tensors, which are one and the same
tensor, counts that once too often, so that it is never freed, and with it its graph. Sites ask for
such: on both sides of a bias, on both branches of a residual connection.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph, dismantle_func_graph
from tensorflow.python.framework.ops import gradient_registry

_NAMED = "CustomGradient-"


_owner: ContextVar[Any] = ContextVar("what alone can run the graphs that are traced", default=None)


@contextmanager
def graphs_freed_with(owner: Any) -> Iterator[None]:
    """Empties what is traced meanwhile and never freed, when `owner` is gone that alone runs it."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def never_freed(graph: Any) -> None:
    """Notes a graph that a tape has been asked in for the gradients at several tensors."""
    if _owner.get() is not None:
        graphs = weakref.WeakSet(_outwards(graph))
        weakref.finalize(_owner.get(), _empty, graphs).atexit = False


def _empty(graphs: weakref.WeakSet) -> None:
    for graph in list(graphs):
        emptied(graph)


def emptied(graph: FuncGraph) -> None:
    """Lets go of what a graph captured. Nothing can run it any more, or read it."""
    forget_custom_gradients(graph)
    dismantle_func_graph(graph)


def forget_custom_gradients(graph: Any) -> None:
    """Lets a graph, and those inside it, be freed once nothing more is differentiated in it."""
    entries = gradient_registry._registry
    for name in [each for each in entries if each.startswith(_NAMED)]:
        if any(each is graph for each in _graphs_around(entries[name]["type"])):
            del entries[name]


def _graphs_around(registered: Callable) -> Iterator[Any]:
    """The graph that a custom gradient was traced in, and those around it."""
    traced = _closed_over(registered).get("tape_grad_fn", registered)
    results = tf.nest.flatten(_closed_over(traced).get("result"))
    graph = next((each.graph for each in results if tf.is_symbolic_tensor(each)), None)
    yield from _outwards(graph)


def _outwards(graph: Any) -> Iterator[FuncGraph]:
    """A graph, and those around it."""
    while isinstance(graph, FuncGraph):
        yield graph
        graph = graph.outer_graph


def _closed_over(function: Callable) -> dict[str, Any]:
    return dict(
        zip(
            function.__code__.co_freevars,
            (cell.cell_contents for cell in function.__closure__ or ()),
            strict=True,
        )
    )
