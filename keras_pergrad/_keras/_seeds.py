"""The states of generators of seeds."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
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
