"""What layers' code keeps in Python where no run puts it back: found, and exchanged for copies.

Attributes and the containers among them are put back by `attributes_kept`. What is left is what an
object holds inside itself (an array that is written in place, a counter, a generator of numbers),
and values beside the layer: of its class, of the functions that it calls, of their modules.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import random
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._containers import replace_inside
from keras_pergrad.runs._reached import Reached, reached_by

Shared = dict[int, Any]

_GENERATORS = (
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    random.Random,
    tf.random.Generator,
)
_NO_STATE = (keras.Layer, keras.Variable, keras.Metric, keras.Loss, keras.Optimizer)


@dataclass(frozen=True)
class Hidden:
    """A place in Python that a run does not put back.

    Attributes:
        where: the place: a layer and its attribute, a class and its, a function's variable.
        draws: whether it holds a generator of random numbers.
        get, set: read what is there, and put another in its place.
        copy: of what is there, given what a copy shares with it.
    """

    where: str
    draws: bool
    get: Callable[[], Any]
    set: Callable[[Any], None]
    copy: Callable[[Any, Shared], Any]


def hidden_in(model: keras.Model) -> list[Hidden]:
    """The places of a model, of what can be copied."""
    found, shared = [], _shared(model)
    for layer in _keras.layers_of(model):
        for name in list(layer.__dict__):
            inside = [e for e in _insides(layer.__dict__[name]) if _is_copied(e, shared)]
            if inside:
                found.append(_attribute(layer, name, draws=any(map(_draws, inside))))
    for place in reached_by(_keras.layers_of(model)):
        if _is_copied(value := place.get(), shared) and _is_exchanged(place):
            found.append(Hidden(place.where, _draws(value), place.get, place.set, _copied))
    return found


@contextlib.contextmanager
def renewed(model: keras.Model, hidden: Iterable[Hidden]) -> Iterator[None]:
    """Inside, some places hold copies of what they hold before and after it."""
    before = [(each, each.get()) for each in hidden]
    shared = _shared(model)
    with attributes_kept(model):
        try:
            for each, value in before:
                each.set(each.copy(value, shared))
            yield
        finally:
            for each, value in before:
                each.set(value)


def _is_exchanged(place: Reached) -> bool:
    """Whether something else can be put there, as nothing can in a frozen class."""
    try:
        place.set(place.get())
    except Exception:  # any class may be behind it
        return False
    return True


def _shared(model: keras.Model) -> Shared:
    """What copies share with the originals: all that Keras knows and puts back."""
    known = (*_keras.layers_of(model), *model.variables, *model.metrics)
    return {id(each): each for each in known}


def _attribute(layer: keras.Layer, name: str, *, draws: bool) -> Hidden:
    attributes = layer.__dict__
    return Hidden(
        f"{layer.path or layer.name}.{name}",
        draws,
        partial(attributes.__getitem__, name),
        partial(attributes.__setitem__, name),
        _copied_inside,
    )


def _insides(value: Any) -> list[Any]:
    """The objects in an attribute, its containers and helpers that may change inside."""
    found = []

    def note(each: Any) -> Any:
        if _has_inside(each):
            found.append(each)
        return each

    replace_inside({"": value}, note)
    return found


def _copied_inside(value: Any, shared: Shared) -> Any:
    """The value with copies of those objects; containers keep their identity, and Keras' trace."""
    box = {"": value}
    replace_inside(box, lambda each: _copied(each, shared) if _has_inside(each) else each)
    return box[""]


def _has_inside(value: Any) -> bool:
    """Whether it is an object that may change while it stays the same object; no container."""
    if isinstance(value, (list, dict, set, tuple, collections.deque)):
        return False
    library = type(value).__module__.partition(".")[0] in ("builtins", "keras", "tensorflow")
    held = isinstance(value, (tf.Variable, tf.random.Generator, bytearray))
    return held or not (library or isinstance(value, (*_NO_STATE, types.ModuleType)))


def _draws(value: Any) -> bool:
    return isinstance(value, _GENERATORS)


def _is_copied(value: Any, shared: Shared) -> bool:
    """Whether a copy can be told from it, or need not be, as it cannot change."""
    constant = isinstance(value, (int, float, complex, str, tuple))
    return constant or _copied(value, dict(shared)) is not value


def _copied(value: Any, shared: Shared) -> Any:
    """A deep copy; the value itself where there is none, as of an open file or a lock."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of copying an `itertools.count`
            return copy.deepcopy(value, shared)
    except Exception:  # any object may be behind it
        return value
