"""Looking back over several steps from each of some: ratios are of means, never of one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_pergrad.diagnostics import MODEL, Record
from keras_pergrad.errors import PerGradError

POINTS = 200  # windows of a picture: more could not be told apart


def windows(count: int, window: int | None = None) -> list[slice]:
    """Windows of `count` records, each of the last `window` up to a record; fewer at the start.

    Args:
        count: how many records there are.
        window: how many records one has; a twentieth of them by default, at least ten.

    Raises:
        PerGradError: a window of less than one record.
    """
    if window is None:
        window = max(10, count // 20)
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise PerGradError(
            f"`window` is a whole number of at least 1. Received: window={window!r}."
        )
    ends = np.unique(np.linspace(1, count, min(count, POINTS)).round().astype(int))
    return [slice(max(0, int(end) - window), int(end)) for end in ends]


def noise_terms(records: Sequence[Record], group: str) -> np.ndarray:
    """`[tr, G2]` of each record, `[n, 2]`; NaN where it has none."""
    missing = [np.nan, np.nan]
    return np.array([record.noise.get(group, missing) for record in records], float)


def mean_terms(terms: np.ndarray, looks: Sequence[slice]) -> np.ndarray:
    """The means of `terms [n, 2]` in each window, `[len(looks), 2]`; NaN where there are none."""
    known = np.isfinite(terms).all(axis=1)
    sums = _running(np.where(known[:, None], terms, 0.0))
    counts = _running(known[:, None].astype(float))
    starts, stops = [look.start for look in looks], [look.stop for look in looks]
    count = counts[stops] - counts[starts]
    return np.where(count > 0, (sums[stops] - sums[starts]) / np.maximum(count, 1), np.nan)


def layers_of(records: Sequence[Record]) -> list[str]:
    """The layers that records have, in the model's order, without the single weights."""
    names = [each for each in dict.fromkeys(n for r in records for n in r.noise) if each != MODEL]
    parents = {name.rpartition("/")[0] for name in names}
    leaves = [name for name in names if name not in parents]
    if all(leaf.rpartition("/")[0] in names for leaf in leaves):
        return [name for name in names if name in parents]
    return names


def _running(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros([1, columns.shape[1]]), columns.cumsum(axis=0)])
