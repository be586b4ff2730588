"""Counts of samples in fixed bins, so that those of several steps can be added up."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import ratio
from keras_pergrad.diagnostics._step import Seen

# 41, so that 0 is in the middle of a bin; ten a decade, and what is beyond is in the outermost.
COSINES = np.linspace(-1.0, 1.0, 42)
LOG_NORMS = np.linspace(-8.0, 8.0, 161)
EDGES = {"grad_cosine": COSINES, "log_norm": LOG_NORMS}


def histograms(seen: Seen) -> dict[str, list[int]]:
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


def _counts(numbers: np.ndarray, edges: np.ndarray) -> list[int]:
    """Of numbers beyond the edges too; NaN is left out."""
    known = np.clip(numbers[~np.isnan(numbers)], edges[0], edges[-1])
    return [int(count) for count in np.histogram(known, edges)[0]]
