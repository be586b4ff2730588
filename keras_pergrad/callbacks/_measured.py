"""What can be asked of a monitor: records, rows, estimates and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_pergrad import plots
from keras_pergrad.diagnostics import (
    Journal,
    Monitor,
    NoiseScaleEstimate,
    OutlierRow,
    Record,
    Scores,
    expect_group,
    noise_scale,
    norm_quantiles,
)
from keras_pergrad.errors import PerGradError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Measured(Monitor):
    """A monitor that keeps a journal, and answers from it."""

    _journal: Journal

    @property
    def records(self) -> Sequence[Record]:
        """The measured steps, the last 10,000 or about 64 MiB of them; a file has all."""
        return self._journal.records

    def outliers(self) -> list[OutlierRow]:
        """The rows of the data that stood out most, the worst first: at most `top_k`."""
        return self._journal.table.rows

    def samples(self) -> Scores:
        """What was added up for each row over the measured steps, in the order they came first.

        `"count"` of its steps, means `"norm"` and `"loss"`, `"self_influence"` `Σ lr ‖g_i‖²` and,
        with `validation`, `"alignment"` `Σ lr ⟨g_i, g_val⟩`: to first order, `B` times what the
        row's part of plain SGD's updates took off the validation loss. Not kept in files: it is of
        what this callback saw.
        """
        return self._journal.samples.table

    def noise_scale(self, group: str = "model", last: int | None = None) -> NoiseScaleEstimate:
        """The noise scale over the measured steps, with its interval and what follows from it.

        Args:
            group: `"model"`, or a layer.
            last: how many of the last records; all by default.

        Raises:
            PerGradError: no such layer, or `last` below 1.
        """
        records = self._last(last)
        if records:
            expect_group(records, group)
        return noise_scale(records, group)

    def norm_quantiles(
        self, shares: Sequence[float] = (0.5, 0.9, 0.95, 0.99), last: int | None = None
    ) -> dict[float, float]:
        """For each share, a norm that as many samples do not exceed: which `C` to clip at.

        Args:
            shares: above 0 and at most 1.
            last: how many of the last records; all by default.

        Raises:
            PerGradError: a share that is none, or `last` below 1.
        """
        return norm_quantiles(self._last(last), shares)

    def _last(self, last: int | None) -> list[Record]:
        if last is None:
            return list(self.records)
        expect_whole(last=last)
        return list(self.records[-last:])

    def dashboard(self, x: Any = None) -> Figure:
        """All pictures of `pg.plots` in one matplotlib figure, not shown.

        Args:
            x: the inputs as given to `fit`, to show outliers where they are images.
        """
        return plots.dashboard(self, x)

    def report(self, path: str | os.PathLike, x: Any = None) -> Path:
        """Writes the pictures and tables into one HTML file, which needs nothing but a browser.

        Args:
            path: of the file.
            x: the inputs as given to `fit`, to show outliers where they are images.
        """
        return plots.report(self, path, x)


def expect_whole(**numbers: Any) -> None:
    """Refuses settings that are no whole numbers of at least 1.

    Raises:
        PerGradError: names the first.
    """
    for name, value in numbers.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < 1:
            raise PerGradError(
                f"`{name}` is a whole number of at least 1. Received: {name}={value!r}."
            )
