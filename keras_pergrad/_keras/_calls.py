"""Layers' calls, answered by somebody else for a while."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext

CallHook = Callable[[keras.Layer, Callable, tuple, dict], Any]

_MISSING = object()


def training_told() -> bool | None:
    """Inside a layer's call: the `training` that it was told, or that an outer layer was."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.get_value("training")


@contextlib.contextmanager
def within_call(training: bool | None) -> Iterator[None]:
    """Inside, layers are called as by an outer layer that was told `training`."""
    before, context = global_state.get_global_attribute("current_call_ctx"), CallContext(None)
    context.set_value("training", training)
    global_state.set_global_attribute("current_call_ctx", context)
    try:
        yield
    finally:
        global_state.set_global_attribute("current_call_ctx", before)


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
