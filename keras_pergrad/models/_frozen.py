"""What a measured training step does with BatchNormalization."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence import layers_with_batch_statistics
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.models._settings import PerSample


def as_asked(model: keras.Model, settings: PerSample) -> contextlib.AbstractContextManager:
    """Inside, BatchNormalization does what the settings say."""
    if settings.batch_norm != "frozen":
        return contextlib.nullcontext()
    return _keras.calls_through(layers_with_batch_statistics(model), _by_moving_statistics)


def _by_moving_statistics(
    layer: keras.layers.BatchNormalization, call: Callable, args: tuple, kwargs: dict
) -> Any:
    return call(*args[:1], **{**kwargs, "training": False})


def expect_allowed(model: keras.Model, settings: PerSample) -> None:
    """Refuses BatchNormalization where it was asked to.

    Raises:
        UnsupportedError: names the first layer.
    """
    layers = layers_with_batch_statistics(model)
    if settings.batch_norm == "error" and layers:
        raise UnsupportedError(
            "BatchNormalization uses the statistics of the batch, so that no sample has a gradient "
            "of its own. Use batch_norm='frozen', freeze the layer, or train "
            "`pg.replace_batch_norm(model)`. "
            f"Received: batch_norm='error' and {len(layers)} such layers, first "
            f"{layers[0].path!r}.",
            causes=("sample_interaction",),
        )
