"""The classes of Keras' models."""

from __future__ import annotations

import keras
from keras.src.models.functional import Functional
from keras.src.models.model import functional_init_arguments

__all__ = ["Functional", "functional_init_arguments", "is_initialized", "is_keras_own"]


def is_initialized(model: keras.Model) -> bool:
    """Whether `keras.Model.__init__` has run."""
    return "_dtype_policy" in model.__dict__


def is_keras_own(cls: type) -> bool:
    """Whether a class is Keras' own, and not a user's."""
    return cls.__module__.startswith("keras.src")
