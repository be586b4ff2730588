"""How large the gradients of samples are, and how unequal."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic, ratio
from keras_pergrad.diagnostics._step import Seen

_NORMS = frozenset({"squared_norms"})


class NormQuantiles(Diagnostic):
    """Mean, median and 95th percentile of `‖g_i‖` (GraNd: Paul et al. 2021, arXiv 2107.07075)."""

    names = ("grad_norm_mean", "grad_norm_median", "grad_norm_p95")
    needs = _NORMS
    num_terms = 3

    def terms(self, seen: Seen) -> np.ndarray:
        ordered = np.sort(seen.norms, axis=0)
        return np.stack(
            [seen.norms.mean(axis=0), _quantile(ordered, 0.5), _quantile(ordered, 0.95)]
        )


class LargestNorm(Diagnostic):
    """The largest `‖g_i‖` of all steps that are looked back on."""

    names = ("grad_norm_max",)
    needs = _NORMS
    num_terms = 1
    largest = True

    def terms(self, seen: Seen) -> np.ndarray:
        return seen.norms.max(axis=0)[None]


class Concentration(Diagnostic):
    """`(Σ‖g_i‖)²/Σ‖g_i‖²`, the effective number of samples, in `[1, B]`; and the largest's share.

    Kish's effective sample size, of norms in the place of weights. Small beside B: a few samples
    make the update.
    """

    names = ("grad_concentration", "grad_largest_share")
    needs = _NORMS
    num_terms = 4

    def terms(self, seen: Seen) -> np.ndarray:
        squares, norms = seen.samples["squared_norms"], seen.norms
        total = norms.sum(axis=0)
        return np.stack([total**2, squares.sum(axis=0), norms.max(axis=0), total])

    def values(self, terms: np.ndarray) -> np.ndarray:
        return np.stack([ratio(terms[0], terms[1]), ratio(terms[2], terms[3])])


class ClipFraction(Diagnostic):
    """The share of samples with `‖g_i‖ > C`, which clipping each at `C` would change.

    Args:
        norm: `C`.
    """

    names = ("clip_fraction",)
    needs = _NORMS
    num_terms = 1

    def __init__(self, norm: float):
        self.norm = norm

    def terms(self, seen: Seen) -> np.ndarray:
        return (seen.samples["squared_norms"] > self.norm**2).mean(axis=0)[None]


def _quantile(ordered: np.ndarray, q: float) -> np.ndarray:
    """Between the two nearest of `ordered [B, G]`, as `np.quantile`, which takes ten times as long
    for as few."""
    place = q * (len(ordered) - 1)
    low, part = ordered[int(place)], place - int(place)
    return low + part * (ordered[min(int(place) + 1, len(ordered) - 1)] - low)
