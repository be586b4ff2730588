"""What a `tf.data` pipeline is made of."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_ROWS = ("TensorSliceDataset", "RangeDataset", "UnbatchDataset")
_UNKNOWN = ("FlatMap", "Interleave", "Window", "Generator")  # elements by a function of the user's


def transformations(data: tf.data.Dataset) -> list[str]:
    """The names of a pipeline's transformations, the last one first, of all that it draws from."""
    names, nodes = [], [data]
    while nodes:
        node = nodes.pop(0)
        names.append(_name(node))
        nodes += node._inputs()
    return names


def has_batches(data: tf.data.Dataset) -> bool | None:
    """Whether its elements are batches of rows, not rows; None where its parts do not tell."""
    name = _name(data)
    if name in _ROWS:
        return False
    if "batch" in name.lower():
        return True
    if any(each in name for each in _UNKNOWN):
        return None
    said = [has_batches(each) for each in data._inputs()]
    return next((each for each in said if each is not None), None)


def _name(data: Any) -> str:
    return type(data).__name__.strip("_")
