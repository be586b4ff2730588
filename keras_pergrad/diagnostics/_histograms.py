"""Counts of samples in fixed bins, so that those of several steps can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from keras_pergrad.diagnostics._diagnostic import ratio
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._step import Seen
from keras_pergrad.errors import PerGradError

# 41, so that 0 is in the middle of a bin; ten a decade, and what is beyond is in the outermost.
COSINES = np.linspace(-1.0, 1.0, 42)
LOG_NORMS = np.linspace(-8.0, 8.0, 161)
EDGES = {"grad_cosine": COSINES, "log_norm": LOG_NORMS}


def histograms(seen: Seen) -> dict[str, np.ndarray]:
    """How many samples of a step are in each bin of `EDGES`, for the whole model.

    Args:
        seen: whose first group is the model.

    Returns:
        `"log_norm"`: of `log₁₀ ‖g_i‖`; `"grad_cosine"`: of `p_i/(‖g_i‖‖ḡ‖)`, where there are
        projections. A sample without a gradient is in neither.
    """
    squares = seen.samples["squared_norms"][:, 0]
    some = squares > 0
    found = {"log_norm": _counts(np.log10(squares[some]) / 2, LOG_NORMS)}
    if "projections" in seen.samples:
        along, n2 = seen.samples["projections"][:, 0], seen.of_step["mean_squares"][0]
        found["grad_cosine"] = _counts(ratio(along, np.sqrt(squares * n2)), COSINES)
    return found


def norm_quantiles(records: Iterable[Record], shares: Sequence[float]) -> dict[float, float]:
    """For each share, a norm that as many samples of all steps do not exceed: which `C` to clip at.

    Args:
        records: measured steps.
        shares: between 0 and 1.

    Returns:
        Share → the upper end of a bin, which are ten a decade; NaN where nothing was measured.

    Raises:
        PerGradError: a share that is none.
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong:
        raise PerGradError(f"Shares are above 0 and at most 1. Received: {wrong[0]!r}.")
    counts = [each.histograms["log_norm"] for each in records if "log_norm" in each.histograms]
    upto = np.cumsum(np.sum(counts, axis=0)) if counts else np.zeros(1)
    if not upto[-1]:
        return dict.fromkeys(shares, float("nan"))
    bins = np.searchsorted(upto, np.asarray(shares) * upto[-1])
    return {
        share: float(10 ** LOG_NORMS[k + 1]) for share, k in zip(shares, bins.tolist(), strict=True)
    }


def _counts(numbers: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Of numbers beyond the edges too; NaN is left out."""
    known = np.clip(numbers[~np.isnan(numbers)], edges[0], edges[-1])
    places = np.minimum(np.searchsorted(edges, known, side="right") - 1, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1).astype(np.int32)
