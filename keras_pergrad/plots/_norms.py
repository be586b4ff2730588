"""How large the samples' gradients are, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_pergrad.diagnostics import MODEL, Record, expect_group
from keras_pergrad.plots import _figure
from keras_pergrad.plots._source import Source, records_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def norms(source: Source, group: str = MODEL) -> Figure:
    """The median, the 95th percentile and the largest norm of sample gradients, by step.

    A growing distance between the median and the largest says that a few samples make the updates;
    medians that rise say that training diverges.

    Args:
        source: a monitor, or records.
        group: `"model"`, or a layer.

    Returns:
        A figure that is not shown; `figure.savefig(path)` keeps it.

    Raises:
        PerGradError: nothing was measured, or there is no such layer.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> values = {"grad_norm_median": 1.0, "grad_norm_p95": 2.0, "grad_norm_max": 3.0}
        >>> figure = pg.plots.norms([pg.Record(0, 0, 8, 0.1, values)])
        >>> figure.axes[0].get_ylabel()
        '‖gradient‖ of a sample (log)'
    """
    records = records_of(source)
    expect_group(records, group)
    figure = _figure.new_figure(7.5, 4.2)
    draw_norms(figure.add_subplot(), records, group)
    return figure


def draw_norms(axes: Axes, records: Sequence[Record], group: str = MODEL) -> None:
    """Draws it on axes."""
    steps = [record.step for record in records]
    median, high, largest = (
        numbers(records, f"grad_norm_{name}", group) for name in ("median", "p95", "max")
    )
    mark = _figure.marker(len(records))
    axes.plot(steps, largest, ".", color=_figure.VERMILLION, ms=4, label="largest", zorder=3)
    axes.plot(
        steps, high, color=_figure.GREEN, linewidth=1, marker=mark, markersize=3, label="95 %"
    )
    axes.plot(
        steps, median, color=_figure.BLUE, linewidth=2, marker=mark, markersize=4, label="median"
    )
    axes.fill_between(steps, median, high, color=_figure.BLUE, alpha=0.15, linewidth=0)
    _figure.log_scale(axes, median, high, largest)
    x = _figure.step_axis(axes, records)
    of = "" if group == MODEL else f"{group}: "
    _figure.dress(axes, of + _said(median, largest), x, "‖gradient‖ of a sample (log)")
    _figure.legend_below(axes)


def numbers(records: Sequence[Record], name: str, group: str = MODEL) -> np.ndarray:
    """A number of each record, NaN where there is none."""
    of = [record.values if group == MODEL else record.groups.get(group, {}) for record in records]
    return np.array([each.get(name, np.nan) for each in of], float)


def _said(median: np.ndarray, largest: np.ndarray) -> str:
    """From the means of the first and the last tenth, so that one odd step says nothing."""
    known = median[np.isfinite(median)]
    if not len(known):
        return "Norms of sample gradients: none is finite"
    part = max(1, len(known) // 10)
    first, last = known[:part].mean(), known[-part:].mean()
    ratios = largest[median > 0] / median[median > 0]
    times = f"; a batch's largest is {np.median(ratios):.2g} times that" if len(ratios) else ""
    if 0.8 * first <= last <= 1.25 * first:
        return f"The median norm is about {last:.3g}{times}"
    verb = "fell" if last < first else "rose"
    return f"The median norm {verb} from {first:.3g} to {last:.3g}{times}"
