"""Signal and noise: what part of the gradients the samples share, and what batch size that asks."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic, ratio
from keras_pergrad.diagnostics._step import Seen

_MEAN = frozenset({"squared_norms", "mean_squares"})


class NoiseScale(Diagnostic):
    """`B_simple = tr/G2`, the batch size at which noise and signal are equal; and `G2/tr`.

    McCandlish et al. 2018, arXiv 1812.06162, equation 2.9 and appendix A.1. `G2` of one batch is
    often negative near an optimum: the ratio is one of means over steps, and NaN where the averaged
    `G2` is not positive, never a clamped number.
    """

    names = ("grad_noise_scale", "grad_snr")
    needs = _MEAN
    num_terms = 2

    def terms(self, seen: Seen) -> np.ndarray:
        return np.stack(seen.trace_and_signal)

    def values(self, terms: np.ndarray) -> np.ndarray:
        trace, signal = terms
        snr = np.where(trace > 0, signal / np.where(trace > 0, trace, 1.0), np.nan)
        return np.stack([ratio(trace, signal), snr])


class Coherence(Diagnostic):
    """`B n2/m2` in `[0, B]`, how many samples pull along; debiased `G2/m2`; diversity `m2/(B n2)`.

    Chatterjee 2020, arXiv 2008.01217; gradient diversity: Yin et al. 2018, arXiv 1706.05699.
    """

    names = ("grad_coherence", "grad_coherence_debiased", "grad_diversity")
    needs = _MEAN
    num_terms = 3

    def terms(self, seen: Seen) -> np.ndarray:
        _, signal = seen.trace_and_signal
        return np.stack([seen.size * seen.of_step["mean_squares"], signal, seen.mean_square])

    def values(self, terms: np.ndarray) -> np.ndarray:
        aligned, signal, m2 = terms
        return np.stack([ratio(aligned, m2), ratio(signal, m2), ratio(m2, aligned)])


class NormTest(Diagnostic):
    """`θ = √(tr/(B n2))`, and the batch size `tr/(θ₀² n2)` that would bring it to `θ₀`.

    Byrd et al. 2012, "Sample size selection in optimization methods for machine learning", (3.9).

    Args:
        theta: `θ₀`.
    """

    names = ("norm_test", "norm_test_batch")
    needs = _MEAN
    num_terms = 3

    def __init__(self, theta: float = 0.5):
        self.theta = theta

    def terms(self, seen: Seen) -> np.ndarray:
        trace, _ = seen.trace_and_signal
        n2 = seen.of_step["mean_squares"]
        return np.stack([trace, seen.size * n2, n2])

    def values(self, terms: np.ndarray) -> np.ndarray:
        trace, aligned, n2 = np.maximum(terms, 0)
        return np.stack([np.sqrt(ratio(trace, aligned)), ratio(trace, n2) / self.theta**2])
