"""Which way the gradients of samples point, from their inner products with the mean."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic, ratio
from keras_pergrad.diagnostics._step import Seen

_PROJECTED = frozenset({"squared_norms", "projections", "mean_squares"})


class Cosine(Diagnostic):
    """The cosine of `g_i` and `ḡ`, on average, and the share below 0."""

    names = ("grad_cosine", "grad_cosine_negative")
    needs = _PROJECTED
    num_terms = 2
    level = "standard"

    def terms(self, seen: Seen) -> np.ndarray:
        squares, along = seen.samples["squared_norms"], seen.samples["projections"]
        cosine = _cosine(along, squares, seen.of_step["mean_squares"])
        negative = np.where(np.isnan(cosine), np.nan, cosine < 0)
        return np.stack([_mean(cosine), _mean(negative)])


class CosineWithOthers(Diagnostic):
    """The cosine of `g_i` and the mean of the others, on average.

    `ḡ` has `g_i` in it, which pulls their cosine up by about `1/√B`. Without it the mean of the
    others is `(Bḡ - g_i)/(B-1)`, whose inner product with `g_i` is `(B p_i - N_i)/(B-1)`.
    """

    names = ("grad_cosine_others",)
    needs = _PROJECTED
    num_terms = 1
    level = "standard"

    def terms(self, seen: Seen) -> np.ndarray:
        squares, along = seen.samples["squared_norms"], seen.samples["projections"]
        n2, size = seen.of_step["mean_squares"], seen.size
        others = size**2 * n2 - 2 * size * along + squares
        return _mean(_cosine(size * along - squares, squares, others))[None]


class Contributions(Diagnostic):
    """The largest contribution `p_i/(B n2)` to the update, and what pulls against it, added up.

    Contributions of all samples add up to exactly 1: 0.41 supplied 41 % of the update.
    """

    names = ("grad_contribution_max", "grad_contribution_against")
    needs = _PROJECTED
    num_terms = 3
    level = "standard"

    def terms(self, seen: Seen) -> np.ndarray:
        along, n2 = seen.samples["projections"], seen.of_step["mean_squares"]
        return np.stack([along.max(axis=0), -np.minimum(along, 0).sum(axis=0), seen.size * n2])

    def values(self, terms: np.ndarray) -> np.ndarray:
        return np.stack([ratio(terms[0], terms[2]), ratio(terms[1], terms[2])])


class InnerAndOrthogonalTest(Diagnostic):
    """Two tests of whether the batch is large enough for its gradient to be a direction of descent.

    `√(var₁(p)/(B n2²))` and `√((ΣN_i - Σp_i²/n2)/((B-1) B n2))`: Bollapragada et al. 2017, arXiv
    1710.11258, (2.4) and (3.3). Below 0.9 and 5.84, its authors' numbers, it is.
    """

    names = ("inner_test", "orthogonal_test")
    needs = _PROJECTED
    num_terms = 4
    level = "standard"

    def terms(self, seen: Seen) -> np.ndarray:
        along, n2, size = seen.samples["projections"], seen.of_step["mean_squares"], seen.size
        if size < 2:
            return np.full([4, len(n2)], np.nan)
        apart = seen.samples["squared_norms"].sum(axis=0) - ratio((along**2).sum(axis=0), n2)
        return np.stack([along.var(axis=0, ddof=1), size * n2**2, apart, (size - 1) * size * n2])

    def values(self, terms: np.ndarray) -> np.ndarray:
        inner, apart = ratio(terms[0], terms[1]), ratio(terms[2], terms[3])
        return np.sqrt(np.maximum(np.stack([inner, apart]), 0))


def _cosine(inner: np.ndarray, squares: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ratio(inner, np.sqrt(np.maximum(squares * other, 0)))


def _mean(columns: np.ndarray) -> np.ndarray:
    """The mean of each column without NaN; NaN where there is nothing else."""
    known = ~np.isnan(columns)
    count = known.sum(axis=0)
    total = np.where(known, columns, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
