"""One measured training step, on the host: what diagnostics are made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._primitives import MEAN_SQUARES, OTHERWISE, SQUARED_NORMS

_ROUNDING = 1e-7  # of sums in float32, beside their size
CANCELLED = 1e-13  # ‖ḡ‖²/m2, of which float32's rounding, 6e-8 in each number, leaves no more


@dataclass(frozen=True)
class MeasuredStep:
    """What was measured of one training step, of all its replicas.

    Attributes:
        step: the number of training steps before it, since the optimizer was made.
        learning_rate: of its update.
        known: whether contributions exist; if not, the numbers are of parts that do not add up.
        ids: `[B]`, of the rows: those given, or fingerprints.
        losses: `[B]`, of the samples; NaN where they were not computed.
        weights: `[B]`, sample weights, 1 without any.
        samples: primitive → `[B, V]`.
        of_step: primitive → `[k]`.
    """

    step: int
    learning_rate: float
    known: bool
    ids: np.ndarray
    losses: np.ndarray
    weights: np.ndarray
    samples: dict[str, np.ndarray]
    of_step: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of samples `B`."""
        return len(self.ids)

    @cached_property
    def finite(self) -> np.ndarray:
        """Which samples have a finite gradient, `[B]`; the mean's NaN is not everyone's."""
        return np.isfinite(self.samples["squared_norms"]).all(axis=1)

    def times(self, factor: float) -> MeasuredStep:
        """The same of gradients that are `factor` times as large; losses stay what they are."""
        powers = {"squared_norms": 2, "projections": 2, "mean_squares": 2, "along_update": 1}
        return dataclasses.replace(
            self,
            samples={n: factor ** powers.get(n, 1) * each for n, each in self.samples.items()},
            of_step={n: factor ** powers.get(n, 0) * each for n, each in self.of_step.items()},
        )


@dataclass(frozen=True)
class Seen:
    """A step's primitives, added up over the variables of each of `G` groups; finite samples alone.

    Attributes:
        size: the number of samples that count.
        samples: primitive → `[B, G]`.
        of_step: primitive → `[G]`, or as it was measured where that is not by variable.
        parameters: `[G]`, how many numbers a group's weights have.
    """

    size: int
    samples: dict[str, np.ndarray]
    of_step: dict[str, np.ndarray]
    parameters: np.ndarray

    @classmethod
    def of(cls, step: MeasuredStep, groups: Groups, parameters: np.ndarray) -> Seen:
        """What a step shows of some groups."""
        finite, matrix = step.finite, groups.matrix
        kept = slice(None) if finite.all() else finite
        samples = {name: _added(each[kept], matrix) for name, each in step.samples.items()}
        of_step = {
            name: each if name in OTHERWISE else _added(each, matrix)
            for name, each in step.of_step.items()
        }
        if MEAN_SQUARES in of_step and finite.any():
            n2, m2 = of_step[MEAN_SQUARES], samples[SQUARED_NORMS].mean(axis=0)
            of_step[MEAN_SQUARES] = np.where(n2 <= CANCELLED * m2, 0.0, n2)
        return cls(int(finite.sum()), samples, of_step, parameters @ matrix)

    @cached_property
    def norms(self) -> np.ndarray:
        """`‖g_i‖`, `[B, G]`."""
        return np.sqrt(self.samples[SQUARED_NORMS])

    @cached_property
    def mean_square(self) -> np.ndarray:
        """`m2`, `[G]`."""
        return self.samples[SQUARED_NORMS].mean(axis=0)

    @cached_property
    def trace_and_signal(self) -> tuple[np.ndarray, np.ndarray]:
        """`tr` and `G2`, `[G]` each; NaN for a batch of one, which tells nothing of variance.

        What is left of a difference by rounding alone is 0.
        """
        size, m2, n2 = self.size, self.mean_square, self.of_step[MEAN_SQUARES]
        if size < 2:
            return np.full_like(m2, np.nan), np.full_like(m2, np.nan)
        least = _ROUNDING * m2
        apart, aligned = (np.where(np.abs(d) <= least, 0.0, d) for d in (m2 - n2, size * n2 - m2))
        return size / (size - 1) * apart, aligned / (size - 1)


def _added(numbers: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`numbers @ matrix`, NaN for the groups alone that have a number which is not finite."""
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers @ matrix
    known = np.where(finite, numbers, 0.0) @ matrix
    return np.where(~finite @ matrix.astype(bool), np.nan, known)
