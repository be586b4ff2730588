"""A model that computes in another dtype than its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_pergrad._keras._layers import layers_of
from keras_pergrad._keras._trainer import loss_objects


@contextlib.contextmanager
def computing_in_float64(model: keras.Model) -> Iterator[None]:
    """Lets every layer and loss compute in float64, and puts their dtypes back.

    The variables stay what they are: runs inside read them from a scope of their own.
    """
    double = keras.DTypePolicy("float64")
    holders = [*layers_of(model), *loss_objects(model)]
    kept = [(holder, dict(holder.__dict__)) for holder in holders]
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        for holder in holders:
            holder.__dict__["_dtype_policy"] = double
            if isinstance(holder, keras.Loss):
                holder.__dict__["_dtype"] = "float64"
        yield
    finally:
        keras.config.set_floatx(floatx)
        for holder, attributes in kept:
            for name in ("_dtype_policy", "_dtype"):
                if name in attributes:
                    holder.__dict__[name] = attributes[name]
