"""Which way the samples' gradients point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_pergrad.diagnostics import EDGES, Record
from keras_pergrad.errors import PerGradError
from keras_pergrad.plots import _figure
from keras_pergrad.plots._source import Source, records_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSINE = "grad_cosine"


def cosines(source: Source) -> Figure:
    """A histogram of the cosines of sample gradients with the mean of their batch.

    All measured steps are in the bars; the line is the last quarter of them alone. Samples whose
    gradients have nothing in common still have a cosine of about `1/√B`, as each is in the mean.

    Args:
        source: a monitor of level `"standard"` or `"full"`, or its records.

    Returns:
        A figure, not shown.

    Raises:
        PerGradError: nothing was measured, or cosines were not.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> counts = [0] * 40 + [8]
        >>> record = pg.Record(0, 0, 8, 0.1, {}, histograms={"grad_cosine": counts})
        >>> pg.plots.cosines([record]).axes[0].get_title(loc="left")
        '0 % of the sample gradients point against the mean'
    """
    records = records_of(source)
    if not has_cosines(records):
        raise PerGradError(
            'Cosines were not measured. Use `GradientMonitor(level="standard")`. '
            f"Received: {len(records)} records without them."
        )
    figure = _figure.new_figure(7.5, 4.2)
    draw_cosines(figure.add_subplot(), records)
    return figure


def has_cosines(records: Sequence[Record]) -> bool:
    """Whether any cosine was counted."""
    return bool(added(records).any())


def added(records: Sequence[Record]) -> np.ndarray:
    """The counts of all records, in 41 bins."""
    found = [record.histograms[COSINE] for record in records if COSINE in record.histograms]
    return np.sum(found, axis=0) if found else np.zeros(len(EDGES[COSINE]) - 1)


def draw_cosines(axes: Axes, records: Sequence[Record]) -> None:
    """Draws it on axes."""
    edges = EDGES[COSINE]
    counts = added(records)
    middles = (edges[1:] + edges[:-1]) / 2
    against = middles < -1e-9
    colours = np.where(against, _figure.VERMILLION, _figure.BLUE)
    colours[len(colours) // 2] = _figure.GREY  # 0 is in the middle of this bin
    shares = 100 * counts / counts.sum()
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=colours, alpha=0.65)
    late = added(records[-max(1, len(records) // 4) :])
    if len(records) >= 8 and late.any():
        axes.stairs(
            100 * late / late.sum(),
            edges,
            color=_figure.DARK,
            linewidth=1.4,
            label="the last quarter of the steps",
        )
    unrelated = float(np.mean([record.size for record in records])) ** -0.5
    axes.axvline(
        unrelated,
        color=_figure.ORANGE,
        linestyle="--",
        linewidth=1.6,
        label="1/√B: what unrelated gradients have",
    )
    axes.axvline(0, color=_figure.DARK, linewidth=0.8)
    axes.set_xlim(-1, 1)
    part = _negative(records, shares[against].sum())
    _figure.dress(
        axes,
        f"{part:.2g} % of the sample gradients point against the mean",
        "cosine of a sample's gradient with the mean",
        "samples, %",
    )
    _figure.legend(axes, loc="upper left")


def _negative(records: Sequence[Record], counted: float) -> float:
    """The share below 0, in percent: as it was measured, if it was, as 0 is within a bin."""
    found = [(record.values.get("grad_cosine_negative", np.nan), record.size) for record in records]
    known = [(share, size) for share, size in found if np.isfinite(share)]
    if not known:
        return counted
    shares, sizes = np.array(known).T
    return float(100 * (shares * sizes).sum() / sizes.sum())
