"""Scores of one batch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics import (
    MEAN_SQUARES,
    Groups,
    Scores,
    of_samples,
    of_step,
)
from keras_pergrad.engines import unique_paths
from keras_pergrad.gradients import SampleGradients
from keras_pergrad.runs import Batch, prepare, trained_variables
from keras_pergrad.scores._columns import LAYER_NORMS, Measured, columns_of, layer_names, needs_of
from keras_pergrad.scores._traced import How, Traced

_LOSSES = "losses"


class Scorer:
    """Makes the columns of each batch.

    Args:
        model: whose gradients.
        names: of the scores.
        reference: the gradient that samples are aligned with, if they are.
        how: gradients are computed.
    """

    def __init__(
        self,
        model: keras.Model,
        names: Sequence[str],
        reference: Sequence[np.ndarray] | None,
        how: How,
    ):
        self._model, self.names, self._wanted = model, list(names), needs_of(names)
        self._measure = Traced(self._made, model, how)
        self._reference_square = sum(float((each**2).sum()) for each in reference or ())
        self._given = reference
        self._reference: list[tf.Variable] = []
        self._groups: Groups | None = None

    def columns(self, batch: Batch) -> dict[str, np.ndarray]:
        """Name → `[B]`; a layer as its place among them."""
        groups = self._groups or self._prepare(batch)
        found = self._measure(batch)
        losses, squares = found.pop(_LOSSES), found.pop(MEAN_SQUARES, np.zeros(1)).sum()
        seen = Measured(losses, found, float(squares), self._reference_square, groups)
        return {n: each for name in self.names for n, each in columns_of(name, seen).items()}

    def table(self, ids: np.ndarray, arrays: dict[str, np.ndarray]) -> Scores:
        """All rows, with the layers' names."""
        if not arrays:  # no rows, and no model that was asked for its layers
            arrays = {name: np.zeros(0) for name in self.names if name != LAYER_NORMS}
        if "layer" in arrays and self._groups is not None:
            arrays["layer"] = np.array(layer_names(self._groups))[arrays["layer"].astype(int)]
        return Scores(ids, arrays)

    def _prepare(self, batch: Batch) -> Groups:
        prepare(self._model, batch)
        variables = trained_variables(self._model)
        self._groups = Groups.of(unique_paths(variables))
        # Held in variables: as constants the graph would have them once more for each shape.
        self._reference = [
            tf.Variable(tf.cast(value, variable.dtype), trainable=False)
            for value, variable in zip(self._given or [], variables, strict=self._given is not None)
        ]
        return self._groups

    def _made(self, g: SampleGradients) -> dict[str, Any]:
        samples = of_samples(g, None, self._wanted, reference=self._reference)
        asked = "loss" in self.names  # they may take a run of each sample
        losses = g.losses if asked else tf.zeros([g.num_samples])
        of_batch = of_step(g, None, self._wanted, samples)
        return {_LOSSES: tf.cast(losses, tf.float64), **samples, **of_batch}
