"""Values beside layers that their code can reach: of classes, of functions, of modules."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

_DATA = (bool, int, float, complex, str, list, dict, set, tuple, bytearray)
_LIBRARIES = {"keras", "keras_pergrad", "tensorflow", "numpy", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Reached:
    """One such value.

    Attributes:
        where: whose it is, and its name.
        key: the same for the same place, whatever reaches it.
        get, set: read it, and put another in its place.
    """

    where: str
    key: tuple[int, str]
    get: Callable[[], Any]
    set: Callable[[Any], None]


def reached_by(layers: Iterable[keras.Layer]) -> list[Reached]:
    """What the classes of layers and the functions that they call hold; libraries left out."""
    found: dict[tuple[int, str], Reached] = {}
    seen: set[int] = set()
    for layer in layers:
        for value in (layer, *layer.__dict__.values()):
            _add_code_of(value, found, seen)
    return list(found.values())


def _add_code_of(value: Any, found: dict, seen: set[int]) -> None:
    """What the code of a function, or of an object's class, can reach."""
    function = getattr(value, "__func__", value)
    if isinstance(function, types.FunctionType):
        _add_function(function, found, seen)
        return
    for cls in type(value).__mro__:
        if id(cls) not in seen and not _is_library(cls.__module__):
            seen.add(id(cls))
            _add_class(cls, found, seen)


def _add_class(cls: type, found: dict, seen: set[int]) -> None:
    for name, value in list(vars(cls).items()):
        value = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(value, types.FunctionType):
            _add_function(value, found, seen)
        elif not name.startswith("__") and _is_data(value):
            found[id(cls), name] = Reached(
                f"{cls.__name__}.{name}",
                (id(cls), name),
                partial(getattr, cls, name),
                partial(setattr, cls, name),
            )


def _add_function(function: types.FunctionType, found: dict, seen: set[int]) -> None:
    """What it closes over, and the globals that it names; and what those can reach."""
    if id(function) in seen or _is_library(function.__module__ or ""):
        return
    seen.add(id(function))
    for each in (*_closed_over(function), *_globals_of(function)):
        value = each.get()
        _add_code_of(value, found, seen)
        if _is_data(value):
            found.setdefault(each.key, each)


def _closed_over(function: types.FunctionType) -> Iterator[Reached]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if _is_filled(cell):
            yield Reached(
                f"{name} of {function.__qualname__}",
                (id(cell), name),
                partial(getattr, cell, "cell_contents"),
                partial(setattr, cell, "cell_contents"),
            )


def _globals_of(function: types.FunctionType) -> Iterator[Reached]:
    space = function.__globals__
    for name in function.__code__.co_names:
        if name in space:
            yield Reached(
                f"{function.__module__}.{name}",
                (id(space), name),
                partial(space.__getitem__, name),
                partial(space.__setitem__, name),
            )


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # it is assigned to later
        return False


def _is_data(value: Any) -> bool:
    """Whether it can be counted in: no module, no class, no function, nothing of Keras'."""
    module = type(value).__module__.partition(".")[0]
    other = isinstance(value, (keras.Layer, keras.Metric, types.ModuleType, type))
    return isinstance(value, _DATA) or not (other or module in ("builtins", "keras", "tensorflow"))


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in _LIBRARIES and top != "__main__"
