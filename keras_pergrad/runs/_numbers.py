"""Strings where the model computes, and labels that a loss needs: refused before Keras meets them.

Only what Keras is certain to stop at, in words of its own about casts and None, is refused here.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_pergrad.errors import DataError
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._leaves import leaves
from keras_pergrad.runs._terms import loss_of_keras

_HOW = "as keras.layers.StringLookup does"


def expect_numbers(model: keras.Model, batch: Batch) -> None:
    """Refuses strings and missing labels where numbers are needed.

    Raises:
        DataError: the inputs or the weights of samples are strings, or the labels of a compiled
            loss are strings or not there.
    """
    inputs = getattr(model, "inputs", None) or []
    if inputs and not any(each.dtype == "string" for each in inputs):
        _refuse_strings("x", batch.x, f"make numbers of them, {_HOW}")
    _refuse_strings("sample_weight", batch.sample_weight, "pass floats")
    for label in _labels_of_losses(model, batch.y):
        if label is None:
            raise DataError(
                "The loss given to `compile` compares predictions with labels, and a label is "
                "missing. Pass `y`, or override `compute_loss` for a loss that needs none. "
                f"Received: y={_shown(batch.y)}."
            )
        _refuse_strings("y", label, f"make numbers of the classes, {_HOW}")


def _labels_of_losses(model: keras.Model, y: Any) -> list[Any]:
    """The labels that a loss converts to numbers, as every loss does that Keras calls itself."""
    loss = loss_of_keras(model)
    losses, labels = keras.tree.flatten(loss), keras.tree.flatten(y)
    if not keras.tree.is_nested(loss) or None not in losses:
        losses = losses[:1] * len(labels) if all(map(_converts, losses)) else []
    elif type(loss) is not type(y) or len(losses) != len(labels):
        return []  # which loss is whose is Keras' to say
    return [label for label, each in zip(labels, losses, strict=False) if _converts(each)]


def _converts(loss: Any) -> bool:
    """Whether a loss is called by `keras.Loss.__call__`, which makes numbers of all labels."""
    if isinstance(loss, keras.Loss):
        return type(loss).__call__ is keras.Loss.__call__
    return loss is not None


def _refuse_strings(name: str, values: Any, way_out: str) -> None:
    for leaf in leaves(values):
        if leaf.dtype == tf.string:
            raise DataError(
                f"`{name}` is made of strings, and the model or its loss computes with numbers: "
                f"{way_out}. Received: {name} of dtype string and shape {leaf.shape}."
            )


def _shown(y: Any) -> str:
    """`None`, or which labels of a nested structure are there."""
    return str(keras.tree.map_structure(lambda leaf: None if leaf is None else "…", y))
