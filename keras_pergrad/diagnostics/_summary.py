"""From measured steps to records, and from records to the numbers of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._histograms import histograms
from keras_pergrad.diagnostics._outliers import OutlierTable, standing_out
from keras_pergrad.diagnostics._primitives import GRAM
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._step import Groups, MeasuredStep, Seen

_NOISE = "NoiseScale"


class Summary:
    """Makes the records of one model.

    Args:
        diagnostics: which numbers.
        paths: of the weights.
        parameters: `[V]`, how many numbers each has.
        kinds: of groups that records have beside the model: `"layer"`, `"variable"`.
    """

    def __init__(
        self,
        diagnostics: Sequence[Diagnostic],
        paths: Sequence[str],
        parameters: np.ndarray,
        kinds: Sequence[str] = ("layer",),
    ):
        self.diagnostics = list(diagnostics)
        self.groups = Groups.of(paths)
        self._parameters = parameters
        self._places = [k for kind in kinds for k in self.groups.places(kind)]

    def record(self, step: MeasuredStep, epoch: int, table: OutlierTable) -> Record:
        """The record of a step, whose rows come into the table."""
        seen = Seen.of(step, self.groups, self._parameters)
        terms = self._terms(seen)
        values = {
            name: column for each in self.diagnostics for name, column in self._named(each, terms)
        }
        whole = step.samples["squared_norms"].sum(axis=1)
        rows = standing_out(step, self.groups, epoch, table)
        noise = terms.get(_NOISE)
        return Record(
            step.step,
            epoch,
            step.size,
            step.learning_rate,
            {name: float(column[0]) for name, column in values.items()},
            self._by_group(values),
            {name: [float(each) for each in found[:, 0]] for name, found in terms.items()},
            {}
            if noise is None
            else {
                self.groups.names[k]: [float(each) for each in noise[:, k]]
                for k in (0, *self._places)
            },
            [int(each) for each in step.ids[~step.finite]],
            int((whole == 0).sum()),
            table.add(rows),
            step.known,
            histograms(seen),
            [table.spread.samples, table.spread.size, table.spread.middle],
            _most_alike(step),
            self._first_wrong(step),
        )

    def _first_wrong(self, step: MeasuredStep) -> str:
        """The first layer, in the model's order, with NaN or Inf in a sample's gradient."""
        wrong = ~np.isfinite(step.samples["squared_norms"]).all(axis=0)
        names, of_layer = self.groups.names, self.groups.matrix[wrong].any(axis=0)
        return next((names[k] for k in self.groups.places("layer") if of_layer[k]), "")

    def _by_group(self, values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Layer or variable → number → value."""
        of_groups = {name: column for name, column in values.items() if len(column) > 1}
        names = [self.groups.names[k] for k in self._places]
        if not of_groups:
            return {name: {} for name in names}
        rows = np.array(list(of_groups.values())).T[self._places].tolist()
        return {
            name: dict(zip(of_groups, row, strict=True))
            for name, row in zip(names, rows, strict=True)
        }

    def values(self, terms: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, float]:
        """Some of the model's numbers, of terms that were put together, diagnostic → `[k]`."""
        columns = {name: np.asarray(each)[:, None] for name, each in terms.items()}
        return {
            name: float(column[0])
            for each in self.diagnostics
            if not set(names).isdisjoint(each.names)
            for name, column in self._named(each, columns)
            if name in names
        }

    def _terms(self, seen: Seen) -> dict[str, np.ndarray]:
        found = {}
        with np.errstate(all="ignore"):
            for each in self.diagnostics:
                columns = each.terms(seen) if seen.size else None
                if columns is not None:
                    found[type(each).__name__] = columns[:, :1] if each.of_model_alone else columns
        return found

    def _named(self, diagnostic: Diagnostic, terms: dict[str, np.ndarray]) -> Iterable:
        found = terms.get(type(diagnostic).__name__)
        if found is None:
            return [(name, np.array([np.nan])) for name in diagnostic.names]
        return zip(diagnostic.names, diagnostic.values(found), strict=True)


def _most_alike(step: MeasuredStep) -> list[int]:
    """The ids of the two rows whose gradients are the most alike, where that was measured."""
    gram = step.of_step.get(GRAM)
    if gram is None or step.size < 2 or not np.isfinite(gram).all():
        return []
    return [int(step.ids[int(k)]) for k in gram[-2:]]


class Window:
    """The model's terms of the steps of one epoch, put together.

    Args:
        diagnostics: whose terms.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]):
        self._largest = {type(each).__name__ for each in diagnostics if each.largest}
        self._together: dict[str, np.ndarray] = {}
        self._counts: dict[str, np.ndarray] = {}

    def add(self, record: Record) -> None:
        """Takes in a step. A diagnostic with a term that is not finite is left out of it whole.

        A ratio of means needs both of the same steps.
        """
        for name, terms in record.terms.items():
            new = np.asarray(terms, float)
            known = np.isfinite(new) if name in self._largest else np.isfinite(new).all()
            start = -np.inf if name in self._largest else 0.0
            before = self._together.get(name, np.full(len(new), start))
            put = np.maximum if name in self._largest else np.add
            self._together[name] = np.where(known, put(before, np.where(known, new, 0.0)), before)
            self._counts[name] = self._counts.get(name, np.zeros(len(new))) + known

    @property
    def terms(self) -> dict[str, np.ndarray]:
        """Diagnostic → its terms, averaged or the largest; NaN for none."""
        found = {}
        for name, together in self._together.items():
            count = self._counts[name]
            by = 1 if name in self._largest else np.maximum(count, 1)
            found[name] = np.where(count > 0, together / by, np.nan)
        return found
