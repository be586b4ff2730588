"""Converters of `tf.vectorized_map`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.parallel_for import pfor

_converters_lock = threading.RLock()
_standard_converters: dict[str, Callable] = {}


@contextlib.contextmanager
def converters_replaced(own: dict[str, Callable]) -> Iterator[None]:
    """Vectorizes the operations named in `own` with the converters given, in this scope alone.

    A converter is given the operation with its inputs, stacked or not, and returns the stacked
    output, wrapped by `stacked`.
    """
    registry = pfor._pfor_converter_registry
    with _converters_lock:
        before = {name: registry.get(name) for name in own}
        for name, converter in before.items():
            if converter is not None:
                _standard_converters.setdefault(name, converter)
        registry.update(own)
        try:
            yield
        finally:
            for name, converter in before.items():
                if converter is None:
                    del registry[name]
                else:
                    registry[name] = converter


def standard_converter(name: str, operation: Any) -> Any:
    """What TensorFlow's own converter answers."""
    return _standard_converters[name](operation)


def looped(operation: Any) -> Any:
    """The operation run once a sample, in a loop: slow and exact."""
    return pfor._fallback_converter(operation, warn=False)


def stacked(value: tf.Tensor) -> Any:
    """A converter's output, one entry a sample."""
    return pfor.wrap(value, True)
