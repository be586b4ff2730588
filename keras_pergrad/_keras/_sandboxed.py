"""What a sandbox would get wrong: functions with a memory of their own, and custom gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras.src.backend.common.global_state import get_global_attribute

from keras_pergrad.errors import UnsupportedError


def traced_afresh(original: Callable) -> Callable:
    """In a sandbox, a user's `tf.function` is traced by itself, for this call alone.

    A cached trace would read the real variables; one made here would go on reading the sandbox's.
    """

    @functools.wraps(original)
    def wrapper(self, *args, **kwargs):
        function = self if sandbox() is None else self._clone(None)
        return original(function, *args, **kwargs)

    return wrapper


def guarded(original: Callable) -> Callable:
    """In a sandbox, weights are tensors, and a custom gradient would drop those it closes over."""

    @functools.wraps(original)
    def wrapper(f, args, kwargs):
        box = sandbox()
        before = None if box is None else box.weights_read
        result = original(f, args, kwargs)
        if box is not None and box.weights_read != before:
            raise UnsupportedError(
                "A custom gradient (tf.custom_gradient, tf.recompute_grad) reads a weight of its "
                "own, which no per-sample gradient can flow through. Pass the weight to it as an "
                f"argument. Received: {getattr(f, '__qualname__', f)!r}.",
                causes=("unconnected",),
            )
        return result

    return wrapper


def sandbox() -> Any:
    """The sandbox that this thread runs in, or None."""
    scope = get_global_attribute("stateless_scope")
    return scope if getattr(scope, "is_sandbox", False) else None
