"""Layers' calls, answered by somebody else for a while."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

CallHook = Callable[[keras.Layer, Callable, tuple, dict], Any]

_MISSING = object()


@contextlib.contextmanager
def calls_through(layers: Iterable[keras.Layer], by: CallHook) -> Iterator[None]:
    """Inside, a call of one of `layers` is what `by(layer, call, args, kwargs)` answers.

    Also where a wrapper calls `layer.call` itself, as `TimeDistributed` does. The layer's own
    attributes hold the replacement, past its `__setattr__`, so that nothing tracks it.
    """
    layers = list(layers)
    before = [layer.__dict__.get("call", _MISSING) for layer in layers]
    for layer in layers:
        layer.__dict__["call"] = _answered(layer, by)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is _MISSING:
                layer.__dict__.pop("call", None)
            else:
                layer.__dict__["call"] = own


def _answered(layer: keras.Layer, by: CallHook) -> Callable:
    call = layer.call

    @functools.wraps(call)
    def wrapper(*args, **kwargs):
        return by(layer, call, args, kwargs)

    return wrapper
