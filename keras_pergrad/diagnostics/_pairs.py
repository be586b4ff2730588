"""What takes every pair of samples, or every number of the weights."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._step import Seen


class PairwiseCosine(Diagnostic):
    """The mean cosine of two samples' gradients, `(‖Σ g_i/‖g_i‖‖² - B)/(B(B-1))`.

    One reweighted sum takes the place of all pairs.
    """

    names = ("grad_pairwise_cosine",)
    needs = frozenset({"squared_norms", "unit_squares"})
    num_terms = 1
    level = "full"
    of_model_alone = True

    def terms(self, seen: Seen) -> np.ndarray:
        size = (seen.samples["squared_norms"][:, 0] > 0).sum()
        if size < 2:
            return np.full([1, 1], np.nan)
        return (seen.of_step["unit_squares"][None] - size) / (size * (size - 1))


class Pairs(Diagnostic):
    """Of the Gram matrix: confusion, the effective rank of the centred one, the most alike pair.

    Confusion `max(0, -min_{i≠j} ⟨g_i, g_j⟩)`: Sankararaman et al. 2019, arXiv 1904.06963. The
    effective rank is `(Σλ)²/Σλ²`. A largest cosine of nearly 1 is a pair of duplicates.
    """

    names = ("grad_confusion", "grad_effective_rank", "grad_most_alike")
    needs = frozenset({"gram"})
    num_terms = 3
    level = "full"
    of_model_alone = True

    def terms(self, seen: Seen) -> np.ndarray:
        if seen.size < 2:
            return np.full([3, 1], np.nan)
        least, rank, alike = seen.of_step["gram"][:3]
        return np.array([[np.maximum(0.0, -least)], [rank], [alike]])


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
