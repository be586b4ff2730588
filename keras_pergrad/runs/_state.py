"""The state that a run reads and writes: variables, and what has to be put back after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._attributes import attributes_kept, raw_variables

State = list[tuple[keras.Variable, tf.Tensor]]


def trained_variables(model: keras.Model) -> list[keras.Variable]:
    """The model's trainable weights; not those that a gradient overwrites, as float8 scales."""
    return [v for v in model.trainable_variables if not v.overwrite_with_gradient]


def every_variable(model: keras.Model) -> list[keras.Variable]:
    """All that a run can read or write: weights, state, metrics, and Keras' global seed."""
    found = [*model.variables, *model.metrics_variables, *_keras.global_seed_state()]
    return list({id(variable): variable for variable in found}.values())


def read(variables: list[keras.Variable]) -> State:
    """The variables with their present values."""
    return [(variable, tf.identity(tf.convert_to_tensor(variable))) for variable in variables]


def in_float64(state: State) -> State:
    """The same values in double precision."""
    return [(v, tf.cast(x, tf.float64) if x.dtype.is_floating else x) for v, x in state]


@contextlib.contextmanager
def state_restored(model: keras.Model) -> Iterator[None]:
    """Puts back all that a real run writes: variables, seeds, and layers' attributes."""
    before = read(every_variable(model))
    with nothing_else_kept(model), _keras.writes_remembered() as written:
        try:
            yield
        finally:
            for variable, value in [*written.values(), *before]:
                variable.assign(value)


@contextlib.contextmanager
def nothing_else_kept(model: keras.Model) -> Iterator[None]:
    """Puts back what is no Keras variable: attributes, seeds, and variables of TensorFlow's own.

    In a graph there is nothing to put back: what its trace leaves aside is refused by the engines.
    """
    eager = tf.executing_eagerly()
    raw = [(v, tf.identity(v)) for v in raw_variables(model)] if eager else []
    with attributes_kept(model):
        try:
            yield
        finally:
            for variable, value in raw:
                variable.assign(value)
