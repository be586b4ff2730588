"""Seams: where a run can be listened to, or told what to answer.

Each is replaced once, at the first use, by a function that asks this thread's innermost hook and
otherwise does what it did.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.ops import custom_gradient

from keras_pergrad._keras._draws import RANDOM_OPERATIONS, DrawHook, listened_draw
from keras_pergrad._keras._reductions import ReductionHook, listened_reduction
from keras_pergrad._keras._sandboxed import guarded, traced_afresh

_active = threading.local()
_install_lock = threading.Lock()
_installed = False


@contextlib.contextmanager
def intercept(
    *, draw: DrawHook | None = None, reduce: ReductionHook | None = None
) -> Iterator[None]:
    """Asks `draw` for every random tensor, and `reduce` for every reduced loss, of this thread."""
    _install()
    outer = _draw_hook(), _reduction_hook()
    _active.draw, _active.reduce = draw, reduce
    try:
        yield
    finally:
        _active.draw, _active.reduce = outer


@contextlib.contextmanager
def reductions_by(reduce: ReductionHook) -> Iterator[None]:
    """Asks `reduce` for every reduced loss, and whoever is asked already for random tensors."""
    with intercept(draw=_draw_hook(), reduce=reduce):
        yield


@contextlib.contextmanager
def writes_remembered() -> Iterator[dict[int, tuple[keras.Variable, tf.Tensor]]]:
    """Every variable that this thread assigns inside, by its id, with its value before."""
    _install()
    written: dict[int, tuple[keras.Variable, tf.Tensor]] = {}
    outer = getattr(_active, "written", ())
    _active.written = (*outer, written)
    try:
        yield written
    finally:
        _active.written = outer


def _draw_hook() -> DrawHook | None:
    return getattr(_active, "draw", None)


def _reduction_hook() -> ReductionHook | None:
    return getattr(_active, "reduce", None)


def _install() -> None:
    global _installed
    with _install_lock:
        if not _installed:
            _replace_all()
            _installed = True


def _replace_all() -> None:
    for module, names in RANDOM_OPERATIONS.items():
        for name in names:
            setattr(module, name, listened_draw(getattr(module, name), _draw_hook))
    reduce = keras_loss.reduce_weighted_values
    keras_loss.reduce_weighted_values = listened_reduction(reduce, _reduction_hook)
    keras.Variable._direct_assign = _remembering(keras.Variable._direct_assign)
    Function.__call__ = traced_afresh(Function.__call__)
    for name in ("_eager_mode_decorator", "_graph_mode_decorator"):
        setattr(custom_gradient, name, guarded(getattr(custom_gradient, name)))


def _remembering(original: Callable) -> Callable:
    @functools.wraps(original)
    def wrapper(self, value):
        for written in getattr(_active, "written", ()):
            if id(self) not in written:
                written[id(self)] = (self, tf.identity(tf.convert_to_tensor(self)))
        return original(self, value)

    return wrapper
