"""From a measured step to what is kept of it."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._condensed import Condensed, Form, records
from keras_pergrad.diagnostics._gram import OF_GRAM
from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._histograms import histograms
from keras_pergrad.diagnostics._outliers import OutlierTable, standing_out
from keras_pergrad.diagnostics._primitives import GRAM
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._step import MeasuredStep, Seen
from keras_pergrad.diagnostics._terms import Terms


class Summary:
    """Condenses the steps of one model.

    Args:
        terms: of which diagnostics.
        groups: of the weights.
        parameters: `[V]`, how many numbers each weight has.
    """

    def __init__(self, terms: Terms, groups: Groups, parameters: np.ndarray):
        self.groups, self.parameters = groups, parameters
        self._form = Form(terms, groups.names)
        self._layers = groups.places("layer")

    def condensed(self, step: MeasuredStep, epoch: int, table: OutlierTable) -> Condensed:
        """What is kept of a step, whose rows come into the table."""
        seen = Seen.of(step, self.groups, self.parameters)
        rows = table.add(standing_out(step, self.groups, epoch, table))
        squares, spread = step.samples["squared_norms"], table.spread
        return Condensed(
            self._form,
            step.step,
            epoch,
            step.size,
            step.learning_rate,
            self._form.terms.of(seen),
            step.ids[~step.finite],
            step.size - int(squares.any(axis=1).sum()),
            rows,
            step.known,
            histograms(seen),
            (spread.samples, spread.size, spread.middle),
            _most_alike(step),
            "" if seen.size == step.size else self._first_wrong(step),
        )

    def record(self, step: MeasuredStep, epoch: int, table: OutlierTable) -> Record:
        """The record of a step, whose rows come into the table."""
        return records([self.condensed(step, epoch, table)])[0]

    def _first_wrong(self, step: MeasuredStep) -> str:
        """The first layer, in the model's order, with NaN or Inf in a sample's gradient."""
        wrong = ~np.isfinite(step.samples["squared_norms"]).all(axis=0)
        names, of_layer = self.groups.names, self.groups.matrix[wrong].any(axis=0)
        return next((names[k] for k in self._layers if of_layer[k]), "")


def _most_alike(step: MeasuredStep) -> list[int]:
    """The ids of the two rows whose gradients are the most alike, where that was measured."""
    gram = step.of_step.get(GRAM)
    if gram is None or step.size < 2:
        return []
    of_model = gram[:-2].reshape(OF_GRAM, -1)[:, 0]
    return [int(step.ids[int(k)]) for k in gram[-2:]] if np.isfinite(of_model).all() else []
