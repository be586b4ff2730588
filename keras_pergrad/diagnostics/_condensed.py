"""Measured steps as they are kept in memory: a tenth of a record's bytes, from which it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_pergrad.diagnostics._record import OutlierRow, Record
from keras_pergrad.diagnostics._terms import Terms

_BYTES, _BYTES_A_ROW = 1500, 400  # of a step beside its arrays, and of a row with its numbers
_NOISE = "NoiseScale"


@dataclass(frozen=True)
class Form:
    """What all steps of a training have in common.

    Attributes:
        terms: where those of each diagnostic are.
        groups: names of the `G` groups; the first is the model.
    """

    terms: Terms
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condensed:
    """One measured step; numbers follow from terms. Attributes as a `Record` has them, and:

    Attributes:
        form: what it has in common with others.
        terms: `[K, G]`; None where no sample has a finite gradient.
    """

    form: Form
    step: int
    epoch: int
    size: int
    learning_rate: float
    terms: np.ndarray | None
    non_finite: np.ndarray
    zero: int
    rows: list[OutlierRow]
    known: bool
    histograms: dict[str, np.ndarray]
    spread: tuple[float, float, float]
    alike: list[int]
    non_finite_in: str

    def values(self, names: Sequence[str]) -> dict[str, float]:
        """Some of the model's numbers."""
        if self.terms is None:
            return dict.fromkeys(names, float("nan"))
        found = self.form.terms.values(self.terms[:, :1], names)
        return {name: float(column[0]) for name, column in found.items()}

    @property
    def nbytes(self) -> int:
        """About how many it takes."""
        arrays = [self.non_finite, *self.histograms.values()]
        arrays += [] if self.terms is None else [self.terms]
        return _BYTES + _BYTES_A_ROW * len(self.rows) + sum(each.nbytes for each in arrays)


def records(several: Sequence[Condensed]) -> list[Record]:
    """The records of steps of one form."""
    full = [each for each in several if each.terms is not None]
    columns = iter(_values(full) if full else [])
    return [_record(each, None if each.terms is None else next(columns)) for each in several]


def _values(several: Sequence[Condensed]) -> list[dict[str, list[float]]]:
    """Of each step, number → its value for each group."""
    form, count = several[0].form, len(several)
    terms = np.concatenate([each.terms for each in several if each.terms is not None], axis=1)
    with np.errstate(all="ignore"):
        found = form.terms.values(terms)
    tables = {name: row.reshape(count, -1).tolist() for name, row in found.items()}
    return [{name: rows[k] for name, rows in tables.items()} for k in range(count)]


def _record(each: Condensed, values: dict[str, list[float]] | None) -> Record:
    form, terms = each.form, each.terms
    groups: dict[str, dict[str, float]]
    if terms is None or values is None:
        nothing = {n: float("nan") for d in form.terms.diagnostics for n in d.names}
        of_model, groups = nothing, {name: {} for name in form.groups[1:]}
        by_diagnostic, noise = {}, {}
    else:
        of_model = {name: row[0] for name, row in values.items()}
        groups = _by_group(form, values)
        by_diagnostic = form.terms.by_diagnostic(terms[:, 0])
        pairs = form.terms.at(_NOISE, terms).T.tolist() if _NOISE in by_diagnostic else []
        noise = dict(zip(form.groups, pairs, strict=False))
    return Record(
        each.step,
        each.epoch,
        each.size,
        each.learning_rate,
        of_model,
        groups,
        by_diagnostic,
        noise,
        each.non_finite.tolist(),
        each.zero,
        each.rows,
        each.known,
        {name: counts.tolist() for name, counts in each.histograms.items()},
        list(each.spread),
        each.alike,
        each.non_finite_in,
    )


def _by_group(form: Form, values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Layer or variable → number → value."""
    alone = {n for d in form.terms.diagnostics if d.of_model_alone for n in d.names}
    names = [name for name in values if name not in alone]
    rows = zip(*(values[name] for name in names), strict=True)
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return dict(zip(form.groups[1:], found[1:], strict=True))
