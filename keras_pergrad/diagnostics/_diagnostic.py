"""The contract of a diagnostic: what a measured step adds, and what is made of all that was added.

Notation in all files here: B samples, gradients `g_i` as the optimizer sees them (contributions),
`ḡ` their mean, `N_i = ‖g_i‖²`, `m2 = mean N_i`, `n2 = ‖ḡ‖²`, `p_i = ⟨g_i, ḡ⟩`. Unbiased estimates
from one batch: `tr = B/(B-1) (m2 - n2)` of the trace of the gradients' covariance, and
`G2 = (B n2 - m2)/(B-1)` of the squared norm of the true gradient. Everything is computed for `G`
groups of weights at once.
"""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

import numpy as np

from keras_pergrad.diagnostics._step import Seen

Level = Literal["norms", "standard", "full"]
_ROUNDING = 1e-7  # of sums in float32, beside their size
LEVELS: tuple[Level, ...] = ("norms", "standard", "full")


class Diagnostic(abc.ABC):
    """Some named numbers made of sample gradients.

    A step gives terms; terms of several steps are averaged, steps with NaN left out, and the
    numbers are made of the averages. So a ratio is one of means, never a mean of ratios.

    Attributes:
        names: of the numbers.
        needs: the primitives it is made of.
        level: the least level of a monitor that has it.
        of_model_alone: whether layers and variables have no such number.
        largest: whether the terms of several steps are put together by their largest, not a mean.
    """

    names: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[str]]
    level: ClassVar[Level] = "norms"
    of_model_alone: ClassVar[bool] = False
    largest: ClassVar[bool] = False

    @abc.abstractmethod
    def terms(self, seen: Seen) -> np.ndarray:
        """What one step adds, `[k, G]`."""

    def values(self, terms: np.ndarray) -> np.ndarray:
        """The numbers, in the order of `names`, `[len(names), G]`, of averaged terms `[k, G]`."""
        return terms


def mean_square(seen: Seen) -> np.ndarray:
    """`m2`, `[G]`."""
    return seen.samples["squared_norms"].mean(axis=0)


def trace_and_signal(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """`tr` and `G2`, `[G]` each; NaN for a batch of one, which tells nothing of variance.

    What is left of a difference by rounding alone is 0.
    """
    size = seen.size
    m2, n2 = mean_square(seen), seen.of_step["mean_squares"]
    if size < 2:
        return np.full_like(m2, np.nan), np.full_like(m2, np.nan)
    least = _ROUNDING * m2
    apart, aligned = (np.where(np.abs(d) <= least, 0.0, d) for d in (m2 - n2, size * n2 - m2))
    return size / (size - 1) * apart, aligned / (size - 1)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio; NaN, never infinite, where the denominator is not positive."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)
