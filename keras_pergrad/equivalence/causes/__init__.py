"""Why two gradients differ: one file a cause, each a function of a model and its report."""

from __future__ import annotations

import keras

from keras_pergrad.equivalence._report import Cause, EquivalenceReport
from keras_pergrad.equivalence.causes._batch_normalization import (
    batch_normalization,
    layers_with_batch_statistics,
)

_CAUSES = (batch_normalization,)


def find_causes(model: keras.Model, report: EquivalenceReport) -> list[Cause]:
    """Every cause that accounts for what a report found, in the order of the files."""
    return [cause for find in _CAUSES for cause in find(model, report)]


__all__ = ["find_causes", "layers_with_batch_statistics"]
