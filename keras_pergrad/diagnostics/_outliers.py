"""The rows of the data whose gradients stand out, the worst of them over a whole training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._record import OutlierRow
from keras_pergrad.diagnostics._step import CANCELLED, MeasuredStep

_MAD = 1.4826  # makes the median absolute deviation that of a normal distribution
_MEAN_DEVIATION = 1.2533  # and this the mean one
_ROUNDING = 1e-6  # of a norm in float32: what is nearer is as large
# Samples by which a spread is told, and a middle; a smaller step borrows from those before it.
STEADY, STEADY_MIDDLE = 64, 8


class OutlierTable:
    """The `top_k` rows with the largest robust z of `log ‖g_i‖`, each once, at its worst step.

    Args:
        top_k: how many.

    Attributes:
        spread: of norms in the steps so far.
    """

    def __init__(self, top_k: int):
        self.top_k, self.spread = top_k, Spread()
        self._rows: dict[int, OutlierRow] = {}

    @property
    def rows(self) -> list[OutlierRow]:
        """The worst first; of rows that are as bad, the one that came first."""
        return sorted(self._rows.values(), key=lambda row: -row.z)

    def add(self, rows: Iterable[OutlierRow]) -> list[OutlierRow]:
        """Takes in what is worse than what is there; answers what was taken in."""
        return [kept for kept in map(self._taken, rows) if kept is not None]

    def put(self, rows: Iterable[OutlierRow]) -> None:
        """Puts rows back as `add` answered them."""
        for row in rows:
            self._rows[row.id] = row
            self._drop()

    def candidates(self, samples: list[int], z: list[float]) -> list[int]:
        """Which of some rows, by their ids and how bad they are, may come to a place."""
        least = self._least()
        pairs = enumerate(zip(samples, z, strict=True))
        return [k for k, (sample, how) in pairs if how > least or sample in self._rows]

    def _least(self) -> float:
        """What a new row has to be worse than."""
        if len(self._rows) < self.top_k:
            return -math.inf
        return min(row.z for row in self._rows.values())

    def _taken(self, row: OutlierRow) -> OutlierRow | None:
        known = self._rows.get(row.id)
        if known is not None:
            worst = row if row.z > known.z else known
            self._rows[row.id] = dataclasses.replace(worst, seen=known.seen + 1)
            return self._rows[row.id]
        if row.z <= self._least():
            return None
        self._rows[row.id] = row
        self._drop()
        return row

    def _drop(self) -> None:
        if len(self._rows) > self.top_k:
            del self._rows[min(self._rows.values(), key=lambda row: row.z).id]


@dataclasses.dataclass
class Spread:
    """How far `log ‖g_i‖` is from its middle in the steps so far.

    That of three samples is a matter of luck, and would put rows of the last, short batch of each
    epoch on top. So a step of fewer than 64 samples is put together with those before it; and its
    median, if it has fewer than 8, as that of two is as far from either.

    Attributes:
        samples: how many it is made of, 64 at most.
        size: the root of the mean square, weighted by samples.
        middle: the median of the last step, with what it borrowed.
    """

    samples: int = 0
    size: float = 0.0
    middle: float = 0.0

    def middle_of(self, samples: int, median: float) -> float:
        """Takes in a step's median; answers what its rows are measured from."""
        borrowed = min(self.samples, max(STEADY_MIDDLE - samples, 0))
        self.middle = (samples * median + borrowed * self.middle) / (samples + borrowed)
        return self.middle

    def with_step(self, samples: int, size: float) -> float:
        """Takes in a step; answers the spread that its rows are measured by."""
        borrowed = min(self.samples, max(STEADY - samples, 0))
        squares = samples * size**2 + borrowed * self.size**2
        self.size = math.sqrt(squares / (samples + borrowed))
        self.samples = min(samples + borrowed, STEADY)
        return self.size


def standing_out(
    step: MeasuredStep, groups: Groups, epoch: int, table: OutlierTable
) -> list[OutlierRow]:
    """The rows of a step that have a place in the table, the largest gradients first."""
    squares = step.samples["squared_norms"]
    whole = squares.sum(axis=1)
    usable = step.finite & (whole > 0)
    if not usable.any():
        return []
    seen = table.spread.samples + usable.sum()
    z = robust_z(whole, usable, table.spread)
    if seen < 2:
        return []
    largest = np.argsort(-np.where(usable, whole, -1.0), kind="stable")
    largest = largest[: min(table.top_k, usable.sum())]
    order = largest[table.candidates(step.ids[largest].tolist(), z[largest].tolist())]
    if not len(order):
        return []
    places = groups.places("layer")
    of_layers = squares[order] @ groups.matrix[:, places]
    layers = [groups.names[places[k]] for k in of_layers.argmax(axis=1)]
    shares = contributions(step)
    return [
        OutlierRow(
            int(step.ids[k]),
            epoch,
            step.step,
            float(np.sqrt(whole[k])),
            float(z[k]),
            float(step.losses[k]),
            layer,
            float(shares[k]),
        )
        for k, layer in zip(order, layers, strict=True)
    ]


def robust_z(squares: np.ndarray, usable: np.ndarray, spread: Spread) -> np.ndarray:
    """The robust z of `log ‖g_i‖` of `squares [B] = ‖g_i‖²`; 0 where all are as large.

    Where half of them are as large, by the mean deviation in place of the median's (Iglewicz and
    Hoaglin 1993, "How to detect and handle outliers").
    """
    logs = np.log(np.where(usable, squares, 1.0)) / 2
    apart = logs - spread.middle_of(int(usable.sum()), _median(logs[usable]))
    sizes = np.abs(apart[usable])
    own = _MAD * _median(sizes)
    if own < _ROUNDING:
        own = _MEAN_DEVIATION * sizes.mean()
    size = spread.with_step(len(sizes), float(own))
    return apart / size if size >= _ROUNDING else np.zeros_like(apart)


def _median(numbers: np.ndarray) -> float:
    """As `np.median`, which takes three times as long for as few."""
    middle = len(numbers) // 2
    ordered = np.sort(numbers)
    return float(ordered[middle] if len(numbers) % 2 else ordered[middle - 1 : middle + 1].mean())


def contributions(step: MeasuredStep) -> np.ndarray:
    """`p_i/(B n2)`, `[B]`, which add up to 1; NaN without projections."""
    if "projections" not in step.samples:
        return np.full(step.size, np.nan)
    along, n2 = step.samples["projections"].sum(axis=1), step.of_step["mean_squares"].sum()
    known = n2 > CANCELLED * step.samples["squared_norms"].sum(axis=1).mean()
    return along / (step.size * n2) if known else np.full(step.size, np.nan)
