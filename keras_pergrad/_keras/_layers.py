"""The layers of a model."""

from __future__ import annotations

import keras

FLAGS = ("_called",)  # attributes of Keras' own that a call sets, and nothing else reads


def layers_of(model: keras.Model) -> list[keras.Layer]:
    """The model and every layer in it, at any depth."""
    return list(model._flatten_layers())


def frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights that were made to be trained and are frozen, with their layer or one by one.

    `trainable_variables` leaves those out, and `non_trainable_variables` has statistics, too.
    """
    made = {id(w): w for layer in layers_of(model) for w in layer._trainable_variables}
    return [weight for weight in made.values() if not weight.trainable]


def stop_rematerializing(model: keras.Model) -> None:
    """Makes layers compute the same numbers without a custom gradient around their weights."""
    for layer in layers_of(model):
        if layer.__dict__.get("_remat_mode") is not None:
            layer.__dict__["_remat_mode"] = None
