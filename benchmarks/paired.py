"""Steps that are timed in pairs: in every round each runs once after the other.

Imports nothing but NumPy, so that any framework's step can be timed by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

Run = Callable[[], object]


def paired(steps: dict[str, Run], rounds: int) -> dict[str, np.ndarray]:
    """Per step, its seconds in each round, `[rounds]`.

    Each runs until its result is there. The first run of each is not counted. The order changes, so
    that nobody always comes after the same.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in list(steps) if turn % 2 else list(steps)[::-1]:
            start = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(found[1:]) for name, found in times.items()}


def compared(seconds: np.ndarray, plain: np.ndarray) -> dict[str, float]:
    """What is reported of a step: the quartiles of its time over the plain one's in its round, the
    ratio of the shortest times of either, which a busy machine disturbs the least, and the median
    of each in milliseconds."""
    low, middle, high = np.quantile(seconds / plain, [0.25, 0.5, 0.75]).tolist()
    ms, plain_ms = (1000 * float(np.median(each)) for each in (seconds, plain))
    shortest = float(seconds.min() / plain.min())
    numbers = {"low": low, "ratio": middle, "high": high, "shortest": shortest}
    return numbers | {"ms": ms, "plain_ms": plain_ms}
