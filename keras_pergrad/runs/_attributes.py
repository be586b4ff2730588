"""What a forward pass leaves on its layers, outside their variables: kept, cut, put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._containers import attributes_of, containers_in, refill, replace_inside

ARRAY_BYTES = 2**24  # of an array that is copied


@contextlib.contextmanager
def attributes_kept(model: keras.Model) -> Iterator[None]:
    """Puts back the attributes of layers and losses, what their containers hold, and all seeds.

    A `call` that stores a tensor on `self`, or fills `self.losses`, leaves nothing behind. Inside,
    layers do not rematerialize: the same numbers, without a custom gradient around the weights.
    """
    holders = [*_keras.layers_of(model), *_keras.losses_of(model)]
    kept = [(holder, dict(holder.__dict__)) for holder in holders]
    contents = [
        (container, container.copy())
        for _, attributes in kept
        for container in containers_in(attributes.values())
    ]
    _keras.stop_rematerializing(model)
    try:
        with _keras.seeds_kept():
            yield
    finally:
        for holder, attributes in kept:
            _restore(holder.__dict__, attributes)
        for container, before in contents:
            refill(container, before)


@contextlib.contextmanager
def arrays_kept(model: keras.Model) -> Iterator[None]:
    """Puts back what is written into NumPy arrays that layers hold, of at most 16 MiB each.

    Not part of `attributes_kept`: between the runs of one check they are what training makes of
    them, so that a layer which counts in one is found.
    """
    kept = [(array, array.copy()) for array in _arrays(model)]
    try:
        yield
    finally:
        for array, before in kept:
            if array.tobytes() != before.tobytes():
                array[...] = before


def _arrays(model: keras.Model) -> Iterator[np.ndarray]:
    for held in _held(model):
        for value in [held, *attributes_of(held)]:
            numbers = isinstance(value, np.ndarray) and not value.dtype.hasobject
            if numbers and value.flags.writeable and value.nbytes <= ARRAY_BYTES:
                yield value


def _restore(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    """Puts back what has changed, and nothing else: another thread may be reading."""
    for name in [name for name in attributes if name not in before]:
        del attributes[name]
    for name, value in before.items():
        if attributes.get(name) is not value:
            attributes[name] = value


def rows_of_attributes(
    model: keras.Model, before: list[tf.Tensor], size: Any, rows: Callable[[Any], Any]
) -> None:
    """Cuts what a forward pass has left on its layers: tensors with one row a sample.

    Args:
        model: the model, between its forward pass and its loss.
        before: what `tensors_held` answered before the forward pass.
        size: the number of samples, or None where it is unknown while tracing.
        rows: takes the rows of a tensor.
    """
    old = {id(tensor) for tensor in before}

    def row(value: Any) -> Any:
        is_batch = isinstance(value, tf.Tensor) and value.shape.rank and value.shape[0] == size
        return _keras.cut(value, rows) if is_batch and id(value) not in old else value

    for layer in _keras.layers_of(model):
        replace_inside(layer.__dict__, row)


def tensors_held(model: keras.Model) -> list[tf.Tensor]:
    """The tensors that layers hold in attributes, and in containers among them."""
    held: list[tf.Tensor] = []

    def note(value: Any) -> Any:
        if isinstance(value, tf.Tensor):
            held.append(value)
        return value

    for layer in _keras.layers_of(model):
        replace_inside(layer.__dict__, note)
    return held


def raw_variables(model: keras.Model) -> list[tf.Variable]:
    """The `tf.Variable`s that layers hold past Keras, those of `tf.random.Generator`s included."""
    found: dict[int, tf.Variable] = {}
    for value in _held(model):
        value = value.state if isinstance(value, tf.random.Generator) else value
        if isinstance(value, tf.Variable):
            found[id(value)] = value
    return list(found.values())


def _held(model: keras.Model) -> Iterator[Any]:
    """What layers and losses hold in attributes, and in containers and tuples among them."""
    for holder in [*_keras.layers_of(model), *_keras.losses_of(model)]:
        attributes = list(holder.__dict__.values())
        yield from attributes
        yield from (each for value in attributes if isinstance(value, tuple) for each in value)
        for container in list(containers_in(attributes)):
            yield from list(container.values() if isinstance(container, dict) else container)
