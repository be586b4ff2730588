"""Lists, dicts, sets and a user's helper objects: walked through, rewritten, put back."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

_DEPTH = 4
_LIBRARIES = ("keras", "tensorflow", "numpy", "builtins", "functools", "weakref", "threading")
_LEAVES = frozenset([str, int, float, bool, bytes, type(None)])  # most of what layers hold
_plain: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()  # asked very often


def containers_in(values: Iterable[Any], depth: int = _DEPTH) -> Iterator[Any]:
    """The lists, dicts and sets among values, and those inside them."""
    for value in values:
        if type(value) in _LEAVES:
            continue
        if _is_plain_object(value):
            value = value.__dict__
        if isinstance(value, (list, dict, set, collections.deque)):
            yield value
        if isinstance(value, (list, dict, set, tuple, collections.deque)) and depth:
            inner = value.values() if isinstance(value, dict) else value
            yield from containers_in(list(inner), depth - 1)


def attributes_of(value: Any) -> list[Any]:
    """What a user's object holds, one that can be called as well; nothing of another."""
    return list(getattr(value, "__dict__", {}).values()) if _is_of_user(type(value)) else []


def replace_inside(
    attributes: dict[str, Any], replace: Callable[[Any], Any], depth: int = _DEPTH
) -> None:
    """Puts `replace(value)` in the place of every value, in containers and helpers as well."""
    for name, value in list(attributes.items()):
        new = _replaced(value, replace, depth)
        if new is not value:
            attributes[name] = new


def _replaced(value: Any, replace: Callable[[Any], Any], depth: int) -> Any:
    """`replace(value)`; containers keep their identity, but for tuples, which are made anew."""
    if not depth or type(value) in _LEAVES:
        return value
    if _is_plain_object(value):
        replace_inside(value.__dict__, replace, depth - 1)
    elif isinstance(value, (list, collections.deque)):
        new: Any = [_replaced(each, replace, depth - 1) for each in value]
        if not is_same(value, new):
            refill(value, new)
    elif isinstance(value, dict):
        new = {key: _replaced(each, replace, depth - 1) for key, each in value.items()}
        if not is_same(value, new):
            refill(value, new)
    elif type(value) is tuple:
        new = tuple(_replaced(each, replace, depth - 1) for each in value)
        return value if is_same(value, new) else new
    return replace(value)


def refill(container: Any, before: Any) -> None:
    """Puts back what was in a container, if a run has changed it.

    Keras' tracked containers are refilled past their own methods, which would track again;
    TensorFlow's wrappers through theirs, behind which the contents lie.
    """
    if is_same(container, before):
        return
    cls: Any = type(container)
    if cls.__module__.startswith("keras"):
        cls = next(base for base in (list, dict, set) if isinstance(container, base))
    cls.clear(container)
    add = cls.extend if isinstance(container, (list, collections.deque)) else cls.update
    add(container, before)


def is_same(container: Any, before: Any) -> bool:
    """Whether a container holds the same objects as a copy of it, or of another."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(key in container and container[key] is before[key] for key in before)
    return all(a is b for a, b in zip(container, before, strict=True))


def _is_plain_object(value: Any) -> bool:
    """Whether it is a user's helper object: no class, no function, nothing of a library's."""
    kind = type(value)
    plain = _plain.get(kind)
    if plain is None:
        plain = _plain[kind] = _is_plain(kind)
    return plain and hasattr(value, "__dict__")


def _is_plain(kind: type) -> bool:
    return _is_of_user(kind) and not any("__call__" in vars(base) for base in kind.__mro__)


def _is_of_user(kind: type) -> bool:
    tracked = (keras.Layer, keras.Variable, keras.Metric, tf.Module)
    return kind.__module__.partition(".")[0] not in _LIBRARIES and not issubclass(kind, tracked)
