"""What takes every pair of samples, or every number of the weights."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._gram import OF_GRAM
from keras_pergrad.diagnostics._step import Seen


class Pairs(Diagnostic):
    """Of the Gram matrix: confusion, the effective rank of the centred one, and of the cosines of
    two samples' gradients the largest and the mean.

    Confusion `max(0, -min_{i≠j} ⟨g_i, g_j⟩)`: Sankararaman et al. 2019, arXiv 1904.06963. The
    effective rank is `(Σλ)²/Σλ²`. A largest cosine of nearly 1 is a pair of duplicates.
    """

    names = ("grad_confusion", "grad_effective_rank", "grad_most_alike", "grad_pairwise_cosine")
    needs = frozenset({"squared_norms", "gram"})
    num_terms = OF_GRAM
    level = "full"

    def terms(self, seen: Seen) -> np.ndarray:
        shape = OF_GRAM, len(seen.parameters)
        if seen.size < 2:
            return np.full(shape, np.nan)
        least, *others = seen.of_step["gram"][:-2].reshape(shape)
        return np.stack([np.maximum(0.0, -least), *others])


class ParameterSignal(Diagnostic):
    """The mean over a group's numbers of `(ḡ² - s²/B)/s²`, the gradients' signal to noise.

    Liu et al. 2020, arXiv 2001.07384, with the correction for finite B.
    """

    names = ("grad_gsnr",)
    needs = frozenset({"signal"})
    num_terms = 1
    level = "full"

    def terms(self, seen: Seen) -> np.ndarray:
        if seen.size < 2:
            return np.full([1, len(seen.parameters)], np.nan)
        return (seen.of_step["signal"] / seen.parameters)[None]
