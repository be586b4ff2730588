"""How a place in the model is called."""

from __future__ import annotations

import keras


def place_of(layer: keras.Layer) -> str:
    """A layer's path; its name where it was never given one."""
    return layer.path or layer.name
