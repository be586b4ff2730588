"""What TensorFlow keeps of every `tf.custom_gradient` that was traced, for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

_NAMED = "CustomGradient-"


def forget_custom_gradients(graph: Any) -> None:
    """Lets a graph, and those inside it, be freed once nothing more is differentiated in it.

    Traced, a custom gradient is registered under a name of its own in a table of the process, and
    holds the tensors that it was traced with, and so the graph. Keras traces one for every mean
    over samples.
    """
    entries = gradient_registry._registry
    for name in [each for each in entries if each.startswith(_NAMED)]:
        if any(each is graph for each in _graphs_around(entries[name]["type"])):
            del entries[name]


def _graphs_around(registered: Callable) -> Iterator[Any]:
    """The graph that a custom gradient was traced in, and those around it."""
    traced = _closed_over(registered).get("tape_grad_fn", registered)
    results = tf.nest.flatten(_closed_over(traced).get("result"))
    graph = next((each.graph for each in results if tf.is_symbolic_tensor(each)), None)
    while graph is not None:
        yield graph
        graph = getattr(graph, "outer_graph", None)


def _closed_over(function: Callable) -> dict[str, Any]:
    return dict(
        zip(
            function.__code__.co_freevars,
            (cell.cell_contents for cell in function.__closure__ or ()),
            strict=True,
        )
    )
