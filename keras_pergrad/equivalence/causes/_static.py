"""What is known of a failed check without its batch: in `fit`, of rows that are not kept."""

from __future__ import annotations

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence.causes import _sample_interaction as interaction


def batch_statistics(model: keras.Model, report: EquivalenceReport) -> list[Cause]:
    """One cause for every layer that uses the statistics of the batch, where samples interact."""
    if report.coupling.passed:
        return []
    return [
        Cause(
            interaction.KIND,
            layer.path,
            interaction.STATISTICS,
            interaction.instead_of(layer, model),
        )
        for layer in layers_with_batch_statistics(model)
    ]


def layers_with_batch_statistics(model: keras.Model) -> list[keras.Layer]:
    """The BatchNormalization layers that are not frozen."""
    return [each for each in _keras.layers_of(model) if interaction.has_batch_statistics(each)]
