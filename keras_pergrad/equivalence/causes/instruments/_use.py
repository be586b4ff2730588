"""Where a weight that no forward pass reads might be read: by whose code, and whether it ran."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from types import CodeType
from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence.causes.instruments._place import place_of
from keras_pergrad.runs import Call

_NOT_RUN = ("__init__", "build", "get_config", "compute_output_shape")
_NOT_OF_USERS = ("keras", "keras_pergrad", "tensorflow", "builtins")


def why_unread(model: keras.Model, weight: keras.Variable, calls: Call) -> str:
    """Why a forward pass never reads a weight: no code does, or code that it does not come to.

    A layer that was not called is looked for in the place of the weight, in those that were.
    """
    called = {id(call.layer): call.layer for call in calls.walk()}
    idle = itertools.takewhile(lambda owner: id(owner) not in called, _owners(model, weight))
    wanted: Any = [weight, *idle][-1]
    what = "it" if wanted is weight else f"its layer {place_of(wanted)!r}"
    namers = [layer for layer in called.values() if _names(layer, wanted)]
    if namers:
        return (
            f"it is in a branch that is not taken: the code of {type(namers[0]).__name__} "
            f"({place_of(namers[0])!r}) names {what}, and this step does not come there"
        )
    uses = "calls" if wanted is not weight else "reads"
    return f"it is unused: nothing {uses} {what} in the forward pass"


def _owners(model: keras.Model, weight: keras.Variable) -> list[keras.Layer]:
    """The layers that have a weight, innermost first."""
    owners = [e for e in _keras.layers_of(model) if any(w is weight for w in e.weights)]
    return sorted(owners, key=lambda layer: len(layer.weights))


def _names(layer: keras.Layer, wanted: Any) -> bool:
    """Whether the code that a layer runs names the attribute in which it holds something."""
    held = {name for name, value in vars(layer).items() if _holds(value, wanted)}
    held -= vars(keras.Layer()).keys()  # in which Keras lists what it tracks
    return any(held & set(code.co_names) for code in _code_of(type(layer)))


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(each is wanted for each in value)
    if isinstance(value, dict):
        return any(each is wanted for each in value.values())
    return value is wanted


def _code_of(cls: type) -> Iterator[CodeType]:
    """What the user's functions of a class run, with the functions inside them."""
    for owner in cls.__mro__:
        if owner.__module__.split(".")[0] in _NOT_OF_USERS:
            continue
        for name, function in vars(owner).items():
            if inspect.isfunction(function) and name not in _NOT_RUN:
                yield from _with_inner(function.__code__)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _with_inner(each)
