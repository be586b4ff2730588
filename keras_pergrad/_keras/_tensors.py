"""What travels with a tensor: its mask, and the logits behind its probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras.src.backend import get_keras_mask, set_keras_mask


def mask_of(tensor: Any) -> Any:
    """The Keras mask that travels with a tensor, or None."""
    return get_keras_mask(tensor)


def with_mask(tensor: Any, mask: Any) -> Any:
    """`tensor`, carrying `mask`."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def with_logits(tensor: Any) -> list[Any]:
    """A prediction, and the logits of a softmax or sigmoid where a loss reads those instead."""
    logits = getattr(tensor, "_keras_logits", None)
    return [tensor] if logits is None else [tensor, logits]


def cut(tensor: Any, rows: Callable[[Any], Any]) -> Any:
    """`rows(tensor)`, with the same rows of what travels with a prediction.

    That is its mask, and the logits of a softmax or sigmoid, from which Keras' TensorFlow backend
    computes a cross-entropy in place of the probabilities.
    """
    row = with_mask(rows(tensor), None if mask_of(tensor) is None else rows(mask_of(tensor)))
    logits = getattr(tensor, "_keras_logits", None)
    if logits is not None:
        row._keras_logits = rows(logits)
    return row
