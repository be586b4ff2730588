"""The states of generators of seeds."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator
from tensorflow.python.eager import context as tf_context


def global_seed_state() -> list[keras.Variable]:
    """The state of Keras' global seed generator, which `seed=None` draws from, if it exists."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


@contextlib.contextmanager
def seeds_kept() -> Iterator[None]:
    """Puts back the states of all generators of seeds: Keras', TensorFlow's, Python's, NumPy's."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    eager = getattr(tf_context.context(), "_rng", None)  # what an eager `tf.random` draws seeds of
    states = random.getstate(), np.random.get_state(), eager and eager.getstate()
    try:
        yield
    finally:
        set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if eager:
            eager.setstate(states[2])


@contextlib.contextmanager
def global_seed_made() -> Iterator[None]:
    """Inside, Keras' global seed generator is there: nothing that is traced may make it.

    Where it was not there before, it is gone after, with all draws that were made.
    """
    if global_seed_state():
        yield
        return
    with seeds_kept():
        global_seed_generator()
        yield


_FAR = 2**20  # draws ahead of where a generator is


def far_seed(variable: keras.Variable, state: Any) -> Any:
    """The state of a generator of seeds far ahead; any other variable's as it is.

    Keras 3.15 keeps `[seed, counter]` in a variable of that name.
    """
    is_seed = variable.path.endswith("seed_generator_state") and tuple(variable.shape) == (2,)
    return state + np.array([0, _FAR], np.uint32) if is_seed else state


def skip_seeds() -> None:
    """Lets TensorFlow's, Python's and NumPy's own generators draw once; within `seeds_kept`."""
    random.random()
    np.random.random()
    eager = getattr(tf_context.context(), "_rng", None)
    if eager:
        eager.random()
