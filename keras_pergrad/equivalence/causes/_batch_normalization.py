"""BatchNormalization in training mode: each sample is normalized by all of them."""

from __future__ import annotations

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence._report import Cause, EquivalenceReport

_BECAUSE = (
    "BatchNormalization in training mode normalizes every sample with the mean and variance of the "
    "whole batch, so that a sample alone, normalized by itself, is another function."
)
_REMEDY = (
    "Use GroupNormalization or LayerNormalization, freeze the layer (`layer.trainable = False`) to "
    "use its moving statistics, or read engine='jacobian', which includes the interaction."
)


def batch_normalization(model: keras.Model, report: EquivalenceReport) -> list[Cause]:
    """One cause for every layer that uses the statistics of the batch, where samples interact."""
    if report.coupling.passed:
        return []
    return [
        Cause("batch_normalization", layer.path, _BECAUSE, _REMEDY)
        for layer in layers_with_batch_statistics(model)
    ]


def layers_with_batch_statistics(model: keras.Model) -> list[keras.Layer]:
    """The BatchNormalization layers that are not frozen."""
    return [
        layer
        for layer in _keras.layers_of(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
