"""What is added up over a training for each row of the data, on the host."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._primitives import ALIGNMENTS
from keras_pergrad.diagnostics._scores import Scores
from keras_pergrad.diagnostics._step import MeasuredStep

_COUNT, _NORM, _LOSS, _LOSSES, _INFLUENCE, _ALIGNMENT, _ALIGNED = range(7)
BYTES_EACH = 170  # of a row, at most: 7 numbers, an entry of a dict, and two whole numbers


class SampleSums:
    """Sums by id, for at most `max_ids` rows: those that come later are counted, and left out.

    Over the measured steps of a row, TracIn's self-influence `Σ lr ‖g_i‖²` (Pruthi et al. 2020,
    arXiv 2002.08484, at steps in the place of checkpoints) and, with a validation gradient,
    `Σ lr ⟨g_i, g_val⟩`, to first order what the row's updates took off the validation loss.

    Args:
        max_ids: how many rows, of at most 170 bytes each: 170 MB for a million.

    Attributes:
        left_out: how often a row came for which there was no room.
    """

    def __init__(self, max_ids: int = 1_000_000):
        self.max_ids, self.left_out = max_ids, 0
        self._slots: dict[int, int] = {}
        self._sums = np.zeros([0, 7])

    def add(self, step: MeasuredStep) -> None:
        """Takes in a step; samples without a finite gradient are left out."""
        finite = step.finite
        slots = np.array(self._slots_of(step.ids[finite].tolist()), int)
        self._grow()
        known = slots >= 0
        self.left_out += int((~known).sum())
        # Not `+=`: a row may be twice in a batch, as in data that repeat.
        np.add.at(self._sums, slots[known], _addends(step)[finite][known])

    @property
    def table(self) -> Scores:
        """The rows in the order in which they came first, with means of norms and losses."""
        sums = self._sums[: len(self._slots)]
        count = sums[:, _COUNT]
        columns = {
            "count": count.astype(np.int64),
            "norm": _mean(sums[:, _NORM], count),
            "loss": _mean(sums[:, _LOSS], sums[:, _LOSSES]),
            "self_influence": sums[:, _INFLUENCE].copy(),
        }
        if (sums[:, _ALIGNED] > 0).any():
            unknown = sums[:, _ALIGNED] == 0
            columns["alignment"] = np.where(unknown, np.nan, sums[:, _ALIGNMENT])
        return Scores(np.fromiter(self._slots, np.int64, len(self._slots)), columns)

    def _slots_of(self, samples: list[int]) -> list[int]:
        """Where the sums of some rows are, new ones taken in; -1 where there is no room."""
        for sample in samples:
            if sample not in self._slots:
                if len(self._slots) >= self.max_ids:
                    break
                self._slots[sample] = len(self._slots)
        return [self._slots.get(sample, -1) for sample in samples]

    def _grow(self) -> None:
        """Room for all slots, doubled so that a growing table is copied few times."""
        if len(self._slots) > len(self._sums):
            rows = min(max(1024, 2 * len(self._slots)), self.max_ids)
            self._sums = np.concatenate([self._sums, np.zeros([rows - len(self._sums), 7])])


def _addends(step: MeasuredStep) -> np.ndarray:
    """What each sample adds, `[B, 7]`."""
    squares = step.samples["squared_norms"].sum(axis=1)
    told = np.isfinite(step.losses)
    along = step.samples.get(ALIGNMENTS, np.full([step.size, 1], np.nan)).sum(axis=1)
    aligned = np.isfinite(along)
    rate = step.learning_rate
    columns = [
        np.ones(step.size),
        np.sqrt(squares),
        np.where(told, step.losses, 0.0),
        told,
        rate * squares,
        np.where(aligned, rate * along, 0.0),
        aligned,
    ]
    return np.stack(columns, axis=1).astype(float)


def _mean(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
