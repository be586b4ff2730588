"""Batches that have their scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Finished:
    """Scores by batch, in order.

    Attributes:
        batches: how many.
        digest: of the bits of their rows.
        first: of those of the first batch alone.
        ids: of the rows.
        columns: name → one array a batch, or of several batches.
    """

    batches: int = 0
    digest: str = ""
    first: str = ""
    ids: list[np.ndarray] = field(default_factory=list)
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, digest: str, ids: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Takes in a batch."""
        self.batches, self.digest, self.first = self.batches + 1, digest, self.first or digest
        self.ids.append(ids)
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)

    @property
    def all_ids(self) -> np.ndarray:
        """`[N]`, int64."""
        return np.concatenate([np.zeros(0, np.int64), *self.ids]).astype(np.int64)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Name → `[N]`."""
        return {name: np.concatenate(parts) for name, parts in self.columns.items()}
