"""One row for each sample: what its gradient says of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_pergrad.diagnostics._catalogue import expect_names
from keras_pergrad.errors import PerGradError


@dataclass(frozen=True)
class Scores:
    """A table with a row for each sample.

    Attributes:
        ids: `[N]`, of the rows: those that came with the data, else 0 … N - 1.
        columns: name → `[N]`.

    Example:
        >>> import numpy as np, keras_pergrad as pg
        >>> scores = pg.Scores(np.arange(3), {"norm": np.array([0.5, 2.0, 1.0])})
        >>> scores.top(2, by="norm").ids
        array([1, 2])
        >>> len(scores), scores["norm"].tolist()
        (3, [0.5, 2.0, 1.0])
    """

    ids: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column.

        Raises:
            PerGradError: there is none of that name; the nearest ones are named.
        """
        expect_names([name], list(self.columns), "column")
        return self.columns[name]

    def __repr__(self) -> str:
        return f"Scores({len(self)} rows: {', '.join(self.columns)})"

    def to_dict(self) -> dict[str, np.ndarray]:
        """`"id"` and all columns, as `pandas.DataFrame` takes them."""
        return {"id": self.ids, **self.columns}

    def rows(self, places: np.ndarray) -> Scores:
        """The rows at some places, `[k]`, in that order."""
        return Scores(self.ids[places], {n: each[places] for n, each in self.columns.items()})

    def top(self, k: int, by: str = "norm") -> Scores:
        """The `k` rows with the largest values of a column, the largest first; NaN counts as least.

        Args:
            k: how many.
            by: the column.

        Raises:
            PerGradError: no such column, or one that has no order.
        """
        values = self[by]
        if values.dtype.kind not in "fiu":
            raise PerGradError(f"Rows are ordered by a column of numbers. Received: by={by!r}.")
        least = np.where(np.isnan(values), -np.inf, values)
        return self.rows(np.argsort(-least, kind="stable")[:k])
