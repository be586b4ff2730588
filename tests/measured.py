"""A step that measured given gradients, by the definitions of its primitives."""

from dataclasses import dataclass

import numpy as np

from keras_pergrad.diagnostics import (
    Diagnostic,
    Groups,
    MeasuredStep,
    Summary,
    Terms,
    diagnostics_of,
)
from keras_pergrad.diagnostics._outliers import OutlierTable, contributions
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._step import Seen

# What takes an update or a second run; gradients alone do not tell it.
OF_RUNS = ("PredictedChange", "LossChange")


@dataclass
class Given:
    """Gradients as a step would have measured them."""

    step: MeasuredStep
    summary: Summary
    diagnostics: list[Diagnostic]

    @property
    def groups(self) -> list[str]:
        return list(self.summary.groups.names)

    @property
    def contributions(self) -> np.ndarray:
        return contributions(self.step)

    def record(self, epoch: int = 0, table: OutlierTable | None = None) -> Record:
        return self.summary.record(self.step, epoch, table or OutlierTable(8))

    def terms(self, name: str) -> np.ndarray:
        return self.terms_of_groups(name)[:, 0]

    def terms_of_groups(self, name: str) -> np.ndarray:
        each = next(d for d in self.diagnostics if d.key == name)
        return each.terms(Seen.of(self.step, self.summary.groups, self.summary.parameters))


def measured(rows: np.ndarray, columns: list[int], groups: Groups, **changed) -> MeasuredStep:
    """The primitives of gradients `rows [B, P]`, whose weights have `columns` numbers each."""
    parts = np.split(rows, np.cumsum(columns)[:-1], axis=1)
    means = [part.mean(axis=0) for part in parts]
    samples = {
        "squared_norms": _columns((part**2).sum(axis=1) for part in parts),
        "projections": _columns(part @ mean for part, mean in zip(parts, means, strict=True)),
    }
    of_step = {
        "mean_squares": np.array([mean @ mean for mean in means]),
        "signal": np.array([_signal(part) for part in parts]),
        "gram": _of_groups(parts, groups),
    }
    of_step |= {name: np.asarray(value) for name, value in changed.items() if name in of_step}
    size = len(rows)
    options = {"step": 0, "ids": np.arange(size)}
    options |= {name: value for name, value in changed.items() if name not in of_step}
    return MeasuredStep(
        options["step"],
        0.1,
        True,
        options["ids"],
        np.ones(size),
        np.ones(size),
        samples,
        of_step,
    )


def seen(rows: np.ndarray, columns=None, paths=None, **changed) -> Given:
    """Gradients `[B, P]` of one weight, or of several with `columns` numbers each."""
    columns = [rows.shape[1]] if columns is None else columns
    paths = ["layer/w"] if paths is None else paths
    found = [d for d in diagnostics_of("full") if type(d).__name__ not in OF_RUNS]
    groups = Groups.of(paths)
    summary = Summary(Terms(found), groups, np.array(columns, float))
    return Given(measured(np.asarray(rows, float), columns, groups, **changed), summary, found)


def values(rows: np.ndarray) -> dict[str, float]:
    """All numbers of gradients `[B, P]`."""
    return seen(rows).record().values


def _columns(parts) -> np.ndarray:
    return np.stack(list(parts), axis=1)


def _signal(part: np.ndarray) -> float:
    if len(part) < 2:
        return 0.0
    variance, square = part.var(axis=0, ddof=1), part.mean(axis=0) ** 2
    known = variance > 0
    return float(((square - variance / len(part))[known] / variance[known]).sum())


def _of_groups(parts: list[np.ndarray], groups: Groups) -> np.ndarray:
    """Four numbers of each group's Gram matrix, and the pair of the model's largest cosine."""
    members = [np.flatnonzero(column) for column in groups.matrix.T]
    found = [_of_gram(np.concatenate([parts[k] for k in here], axis=1)) for here in members]
    return np.concatenate([*np.transpose([numbers for numbers, _ in found]), found[0][1]])


def _of_gram(rows: np.ndarray) -> tuple[list[float], tuple[int, int]]:
    """Least inner product of two, effective rank, largest and mean cosine; the largest's pair."""
    size = len(rows)
    if size > 1000:
        return [np.nan] * 4, (0, 0)
    gram, norms = rows @ rows.T, np.linalg.norm(rows, axis=1)
    centred = rows - rows.mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T)
    total = (eigenvalues**2).sum()
    rank = eigenvalues.sum() ** 2 / total if total > 0 else 0.0
    if size < 2:
        return [np.inf, rank, -np.inf, np.nan], (0, 0)
    units = np.divide(rows, norms[:, None], out=np.zeros_like(rows), where=norms[:, None] > 0)
    count, apart = (norms > 0).sum(), ~np.eye(size, dtype=bool)
    pairs = count * (count - 1)
    mean = ((units.sum(axis=0) ** 2).sum() - count) / pairs if pairs else np.nan
    cosines = np.where(apart, units @ units.T, -np.inf)
    numbers = [gram[apart].min(), rank, cosines.max(), mean]
    return numbers, np.unravel_index(cosines.argmax(), cosines.shape)
