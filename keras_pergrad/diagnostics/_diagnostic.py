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
LEVELS: tuple[Level, ...] = ("norms", "standard", "full")


class Diagnostic(abc.ABC):
    """Some named numbers made of sample gradients.

    A step gives terms; terms of several steps are averaged, steps with NaN left out, and the
    numbers are made of the averages. So a ratio is one of means, never a mean of ratios.

    Attributes:
        names: of the numbers.
        needs: the primitives it is made of.
        num_terms: how many a step gives, `k`.
        level: the least level of a monitor that has it.
        of_model_alone: whether layers and variables have no such number.
        largest: whether the terms of several steps are put together by their largest, not a mean.
    """

    names: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[str]]
    num_terms: ClassVar[int]
    level: ClassVar[Level] = "norms"
    of_model_alone: ClassVar[bool] = False
    largest: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Under which records have its terms."""
        return type(self).__name__

    @abc.abstractmethod
    def terms(self, seen: Seen) -> np.ndarray:
        """What one step adds, `[k, G]`."""

    def values(self, terms: np.ndarray) -> np.ndarray:
        """The numbers, in the order of `names`, `[len(names), n]`, of averaged terms `[k, n]`.

        Column by column: they may be those of groups, or of steps.
        """
        return terms


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio; NaN, never infinite, where the denominator is not positive."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)
