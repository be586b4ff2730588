"""The noise scale, over time and against the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_pergrad import diagnostics
from keras_pergrad.diagnostics import MODEL, NoiseScaleEstimate, Record, expect_group
from keras_pergrad.plots import _figure
from keras_pergrad.plots._source import Source, records_of
from keras_pergrad.plots._windows import windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def noise_scale(source: Source, group: str = MODEL, *, window: int | None = None) -> Figure:
    """The noise scale with its 95 % interval: by step, and against the batch size.

    On the left, each point looks back over `window` records; where their mean `G2` is not positive
    there is no noise scale, and the step is grey. On the right, what part of the progress that a
    step without noise would make is made with a batch of `B`: `1/(1 + B_noise/B)` (McCandlish et
    al. 2018, arXiv 1812.06162, equation 2.7), by the noise scale of the last window.

    Args:
        source: a monitor, or records.
        group: `"model"`, or a layer.
        window: how many records to look back over; a twentieth by default, at least ten.

    Returns:
        A figure, not shown.

    Raises:
        PerGradError: nothing was measured, there is no such layer, or no window is so long.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> records = [pg.Record(k, 0, 8, 0.1, {}, noise={"model": [8.0, 2.0]}) for k in range(4)]
        >>> figure = pg.plots.noise_scale(records)
        >>> float(figure.axes[0].lines[0].get_ydata()[-1])
        4.0
    """
    records = records_of(source)
    expect_group(records, group)
    looks = windows(len(records), window)
    figure = _figure.new_figure(13, 4.4)
    left, right = figure.subplots(1, 2)
    draw_over_time(left, records, looks, group)
    draw_against_batch(right, records, looks, group)
    return figure


def draw_over_time(
    axes: Axes, records: Sequence[Record], looks: Sequence[slice], group: str = MODEL
) -> None:
    """Draws the noise scale of each window, and the batch size beside it."""
    found = [diagnostics.noise_scale(records[look], group) for look in looks]
    steps = np.array([records[look.stop - 1].step for look in looks])
    values = np.array([each.value for each in found])
    sizes = [records[look.stop - 1].size for look in looks]
    axes.plot(
        steps,
        values,
        color=_figure.BLUE,
        linewidth=2,
        marker=_figure.marker(len(looks)),
        markersize=4,
        label="noise scale",
    )
    axes.plot(
        steps,
        sizes,
        color=_figure.DARK,
        linestyle="--",
        marker=_figure.marker(len(looks)),
        markersize=3,
        label="batch size",
    )
    low, high = _interval(found)
    label = "95 % interval" if np.isfinite(low).any() else "_"
    axes.fill_between(
        steps,
        low,
        high,
        color=_figure.BLUE,
        alpha=0.2,
        linewidth=0,
        label=label,
    )
    _shade(axes, steps, np.isnan(values))
    _figure.log_scale(axes, values, sizes)
    x = _figure.step_axis(axes, records)
    looked = max(look.stop - look.start for look in looks)
    of = "" if group == MODEL else f"{group}: "
    _figure.dress(axes, of + _said(found, looked), x, "samples (log)")
    _figure.legend_below(axes)


def draw_against_batch(
    axes: Axes, records: Sequence[Record], looks: Sequence[slice], group: str = MODEL
) -> None:
    """Draws the progress of a step for any batch size, by the noise scale of the last window."""
    found = diagnostics.noise_scale(records[looks[-1]], group)
    size = float(np.mean([record.size for record in records[looks[-1]]]))
    sizes = np.geomspace(1, 30 * max(size, found.value if found.value > 1 else 1.0), 200)
    axes.set_xscale("log")
    if np.isnan(found.value):
        axes.text(
            0.5,
            0.6,
            _why(found),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=9,
            color=_figure.DARK,
            bbox={"facecolor": "white", "edgecolor": "none"},
            zorder=4,
        )
        axes.set_xlim(sizes[0], sizes[-1])
        title = "What a larger batch would bring cannot be told"
    else:
        part = 1 / (1 + found.value / size)
        axes.plot(sizes, 100 / (1 + found.value / sizes), color=_figure.BLUE, linewidth=2)
        _draw_interval(axes, found, sizes)
        axes.plot([size], [100 * part], "o", color=_figure.DARK, markersize=7, zorder=4)
        title = f"A batch of {size:.0f} makes {100 * part:.2g} % of a noiseless step's progress"
    axes.axvline(size, color=_figure.DARK, linestyle="--", label=f"batch size {size:.0f}")
    axes.set_ylim(0, 102)
    _figure.plain_numbers(axes.xaxis)
    _figure.dress(axes, title, "batch size, samples (log)", "progress of a step, %")
    _figure.legend(axes, loc="upper left")


def _draw_interval(axes: Axes, found: NoiseScaleEstimate, sizes: np.ndarray) -> None:
    axes.axvline(
        max(found.value, sizes[0]),
        color=_figure.VERMILLION,
        linewidth=1.5,
        label=f"noise scale {_figure.short(found.value)}",
    )
    if np.isfinite(found.low):
        low, high = np.clip([found.low, found.high], sizes[0], sizes[-1])
        axes.axvspan(
            low,
            high,
            color=_figure.VERMILLION,
            alpha=0.15,
            linewidth=0,
            label=f"95 % interval {_figure.short(found.low)} … {_figure.short(found.high)}",
        )


def _interval(found: Sequence[NoiseScaleEstimate]) -> tuple[np.ndarray, np.ndarray]:
    """The intervals; those without a bound end a decade beyond all that is known."""
    low, high = np.array([[each.low, each.high] for each in found]).T
    known = np.array([[each.value, each.low, each.high, each.batch_size] for each in found])
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return low, high
    return np.maximum(low, known.min() / 10), np.minimum(high, known.max() * 10)


def _shade(axes: Axes, steps: np.ndarray, unknown: np.ndarray) -> None:
    """Grey where there is no noise scale, half the way to the steps that have one."""
    middles = (steps[1:] + steps[:-1]) / 2
    edges = np.concatenate([steps[:1] - 0.5, middles, steps[-1:] + 0.5])
    label = "none: noise dominates, or one sample"
    for k in np.flatnonzero(unknown):
        axes.axvspan(
            edges[k], edges[k + 1], color=_figure.PALE, linewidth=0, zorder=0.2, label=label
        )
        label = "_"


def _said(found: Sequence[NoiseScaleEstimate], looked: int) -> str:
    last = found[-1]
    if np.isnan(last.value):
        return "No noise scale at the end: " + _why(last).replace("\n", " ")
    between = (
        f" ({_figure.short(last.low)} … {_figure.short(last.high)})"
        if np.isfinite(last.low)
        else ""
    )
    over = f"the last {looked} records" if looked > 1 else "the last record"
    return f"Noise scale {_figure.short(last.value)}{between} over {over}"


def _why(found: NoiseScaleEstimate) -> str:
    if found.noise_dominated:
        return "noise dominates the gradients,\nthe scale is far above the batch size"
    return "no measured step had two samples"
