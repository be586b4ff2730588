"""The mean gradient of some data, as of a validation set, with which samples are aligned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.errors import DataError
from keras_pergrad.gradients import SampleGradients
from keras_pergrad.runs import build_if_unbuilt
from keras_pergrad.scores._batches import batches_of
from keras_pergrad.scores._traced import How, Traced


class MeanGradient:
    """The mean of the samples' own gradients at a model's weights, which are left as they are.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)`, or a dataset of batches of them.
        how: gradients are computed.

    Attributes:
        batches: of the data.

    Raises:
        DataError: it is none of those.
    """

    def __init__(self, data: Any, how: How):
        parts = data if isinstance(data, tuple) else (data,)
        if not 1 <= len(parts) <= 3:
            raise DataError(
                "`validation` is (x, y), (x, y, sample_weight) or a dataset of batches. "
                f"Received: {len(parts)} parts."
            )
        x, y, sample_weight = (*parts, None, None)[:3]
        self.batches = batches_of(x, y, sample_weight, None)
        self._how = how
        self._model: keras.Model | None = None
        self._sums: Traced | None = None

    def of(self, model: keras.Model) -> list[np.ndarray]:
        """One array a weight, in float64.

        Raises:
            DataError: there are no rows.
        """
        total, rows = None, 0
        for batch, ids in self.batches:
            build_if_unbuilt(model, batch)
            found = self._traced(model)(batch)
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
            rows += len(ids)
        if total is None:
            raise DataError("The validation data have no rows. Received: 0 rows.")
        return [each / rows for each in total]

    def _traced(self, model: keras.Model) -> Traced:
        if self._sums is None or self._model is not model:
            self._model, self._sums = model, Traced(_sums, model, self._how)
        return self._sums


def _sums(g: SampleGradients) -> list[tf.Tensor]:
    return [tf.cast(each, tf.float64) for each in g.sum()]
