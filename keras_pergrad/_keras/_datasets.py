"""What a `tf.data` pipeline is made of."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def transformations(data: tf.data.Dataset) -> list[str]:
    """The names of a pipeline's transformations, the last one first."""
    names = []
    node: Any = data
    while node is not None:
        names.append(type(node).__name__.strip("_"))
        node = getattr(node, "_input_dataset", None)
    return names
