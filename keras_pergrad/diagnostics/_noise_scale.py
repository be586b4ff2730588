"""The noise scale of several steps, with what it leaves open and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_pergrad.diagnostics._groups import MODEL
from keras_pergrad.diagnostics._record import Record

_NORMAL = 1.96  # standard errors on either side, of a 95 % interval


@dataclass(frozen=True)
class NoiseScaleEstimate:
    """`B_simple = tr/G2` of several measured steps (McCandlish et al. 2018, arXiv 1812.06162).

    Attributes:
        value: the ratio of the means of `tr` and `G2`; NaN where the mean `G2` is not positive.
        low, high: a 95 % interval by the delete-one jackknife over steps; NaN for fewer than three.
        noise_dominated: whether the mean `G2` is not positive: the noise is so large beside the
            signal that these steps cannot tell their ratio.
        steps: how many.
        batch_size: their mean number of samples.
        noise: the mean of `tr`.
    """

    value: float
    low: float
    high: float
    noise_dominated: bool
    steps: int
    batch_size: float
    noise: float = float("nan")

    @property
    def is_still(self) -> bool:
        """Whether there is neither noise nor signal."""
        return self.noise_dominated and self.noise == 0

    @property
    def advice(self) -> str:
        """What follows for the batch size."""
        if self.steps == 0:
            return (
                "No step tells a noise scale: none was measured, or none with two samples that "
                "have finite gradients, and contributions that add up to the update."
            )
        if self.is_still:
            return f"All gradients of these {self.steps} steps are zero: there is nothing to learn."
        if self.noise_dominated:
            return (
                f"Noise dominates the gradients of these {self.steps} steps, so that no noise "
                "scale can be told: it is far above the batch size. Average over more steps; a "
                "larger batch or a smaller learning rate would pay."
            )
        if not self.value:
            return "All samples have the same gradient: one of them would do."
        part = self.batch_size / self.value
        size = f"Your batch of {self.batch_size:.0f} is {part:.2g} of the noise scale"
        if part < 0.5:
            return f"{size}: a larger batch would pay, nearly in proportion."
        if part > 2:
            return f"{size}: a smaller batch would learn as much a step for less."
        return f"{size}: about where larger batches stop paying."


def noise_scale(records: Iterable[Record], group: str = MODEL) -> NoiseScaleEstimate:
    """The noise scale of measured steps.

    Args:
        records: the steps.
        group: `"model"`, or a layer or variable that the records have.
    """
    found = [(r.noise[group], r.size) for r in records if group in r.noise and r.known]
    found = [(terms, size) for terms, size in found if np.isfinite(terms).all()]
    if not found:
        return NoiseScaleEstimate(np.nan, np.nan, np.nan, False, 0, np.nan)
    terms = np.array([each for each, _ in found])
    size = float(np.mean([each for _, each in found]))
    trace, signal = terms.mean(axis=0)
    if signal <= 0:
        return NoiseScaleEstimate(np.nan, np.nan, np.nan, True, len(terms), size, float(trace))
    value = max(trace, 0.0) / signal
    low, high = jackknife_interval(terms)
    return NoiseScaleEstimate(float(value), low, high, False, len(terms), size, float(trace))


def jackknife_interval(terms: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of a ratio of means, by the delete-one jackknife of its logarithm.

    Quenouille 1956, Tukey 1958: the variance is `(n-1)/n Σ(θ_(-j) - θ̄)²`. The ratio is positive and
    of an unknown order of magnitude, and so is what its interval bounds.

    Args:
        terms: `[n, 2]`, numerators and denominators, with positive means.
    """
    count = len(terms)
    if count < 3:
        return float("nan"), float("nan")
    rest = terms.sum(axis=0) - terms
    if (rest <= 0).any():  # it hangs on a single step: nothing is certain
        return 0.0, float("inf")
    without = np.log(rest[:, 0] / rest[:, 1])
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    value = np.log(terms[:, 0].sum() / terms[:, 1].sum())
    return float(np.exp(value - _NORMAL * error)), float(np.exp(value + _NORMAL * error))
