"""A loss like the one compiled that is the mean of the samples' losses, tried out."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.equivalence.causes.instruments import Case, Output, find_outputs
from keras_pergrad.runs import leaves

FEW = 4  # samples that a loss is tried on, which was found not to be such a mean on all
_MEAN = {"reduction": "sum_over_batch_size"}


def separating(case: Case, output: Output) -> str | None:
    """The code of it, with as little changed as will do; None where nothing that was tried does."""
    loss = output.loss
    if loss is None:
        return None
    few = range(min(case.size, FEW))
    like = _of_keras(loss)
    for change in _changes(case, output, like):
        try:
            with _configured(loss, like, change):
                kind = find_outputs(case.run, case.rtol, few)[output.number].kind
        except (ValueError, TypeError, KeyError, IndexError, tf.errors.OpError):
            continue  # a loss with a constructor of its own, or an axis that it cannot have
        if kind == "plain":
            return _code(like, change)
    return None


def _of_keras(loss: keras.Loss) -> keras.Loss:
    """The loss; or, for what `compile` makes of a Keras function as `"dice"`, one of its class."""
    function = getattr(loss, "fn", None)
    if function is None or not _keras.is_keras_own(function):
        return loss
    name = "".join(part.title() for part in getattr(function, "__name__", "").split("_"))
    cls = getattr(keras.losses, name, None)
    if cls is None or isinstance(loss, cls):
        return loss
    return cls(reduction=loss.reduction)


def _changes(case: Case, output: Output, loss: keras.Loss) -> Iterator[dict[str, Any]]:
    """Another reduction, other axes, and both; an axis of one number is that of the classes."""
    config = loss.get_config()
    reductions = [_MEAN] if config.get("reduction") != _MEAN["reduction"] else []
    yield from reductions
    if "axis" in config and not isinstance(config["axis"], int):
        floats = [leaf for leaf in leaves(case.run.y_pred) if leaf.dtype.is_floating]
        axes = {"axis": tuple(range(1, floats[output.number].shape.rank))}
        yield axes
        yield from (axes | each for each in reductions)


@contextlib.contextmanager
def _configured(loss: keras.Loss, like: keras.Loss, change: dict[str, Any]) -> Iterator[None]:
    """Inside, the loss is what another with a changed configuration is."""
    before, config = dict(vars(loss)), {**like.get_config(), **change}
    # A loss of the user's own need not be able to be made again; its reduction Keras looks up.
    vars(loss).update(change if change == _MEAN else vars(type(like).from_config(config)))
    try:
        yield
    finally:
        vars(loss).clear()
        vars(loss).update(before)


def _code(loss: keras.Loss, change: dict[str, Any]) -> str:
    """What it is made by: what is changed, and what else is not as by default."""
    usual = inspect.signature(type(loss)).parameters
    if not usual.keys() >= change.keys():
        return ", ".join(f"{name}={value!r}" for name, value in change.items())
    kept = {
        name: value
        for name, value in loss.get_config().items()
        if name in usual and name not in change and value != usual[name].default
    }
    arguments = ", ".join(f"{name}={value!r}" for name, value in (change | kept).items())
    return f"{type(loss).__name__}({arguments})"
