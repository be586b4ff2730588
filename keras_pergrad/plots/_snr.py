"""Signal to noise of each layer, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_pergrad.diagnostics import Record
from keras_pergrad.errors import PerGradError
from keras_pergrad.plots import _figure
from keras_pergrad.plots._names import short_names
from keras_pergrad.plots._source import Source, records_of
from keras_pergrad.plots._windows import layers_of, mean_terms, noise_terms, windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure


def snr(source: Source, *, window: int | None = None) -> Figure:
    """A map, layer by time, of `|G|²/tr`: the signal in one sample's gradient, beside its noise.

    Each cell looks back over `window` records, and is a ratio of means. Grey: the mean `G2` is not
    positive, so that noise dominates. Hatched: nothing was measured.

    Args:
        source: a monitor, or records.
        window: how many records to look back over; a twentieth by default, at least ten.

    Returns:
        A figure, not shown.

    Raises:
        PerGradError: nothing was measured, of layers above all; or no window is so long.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> noise = {"model": [8.0, 2.0], "net/a": [4.0, 1.0], "net/b": [4.0, 1.0]}
        >>> figure = pg.plots.snr([pg.Record(0, 0, 8, 0.1, {}, noise=noise)])
        >>> [each.get_text() for each in figure.axes[0].get_yticklabels()]
        ['a', 'b']
    """
    records = records_of(source)
    looks = windows(len(records), window)
    figure = _figure.new_figure(10, height(len(expect_layers(records))))
    draw_snr(figure.add_subplot(), records, looks)
    return figure


def height(layers: int) -> float:
    """Inches that so many layers need to be read."""
    return min(1.9 + max(0.15 * layers, min(0.3 * layers, 2.4)), 24.0)


def expect_layers(records: Sequence[Record]) -> list[str]:
    """The layers of records.

    Raises:
        PerGradError: they have none.
    """
    layers = layers_of(records)
    if not layers:
        raise PerGradError(
            "These records have no layers: a monitor's have them. "
            f"Received: {len(records)} records with numbers of the model alone."
        )
    return layers


def ratios(records: Sequence[Record], looks: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
    """`|G|²/tr` of each layer and window; and whether noise dominates it. `[L, W]` each."""
    means = np.stack([mean_terms(noise_terms(records, name), looks) for name in layers_of(records)])
    trace, signal = means[..., 0], means[..., 1]
    positive = (signal > 0) & (trace > 0)
    return np.where(positive, signal / np.where(positive, trace, 1.0), np.nan), signal <= 0


def draw_snr(axes: Axes, records: Sequence[Record], looks: Sequence[slice]) -> None:
    """Draws it on axes, with a bar of its colours."""
    from matplotlib.colors import ListedColormap, LogNorm

    layers = expect_layers(records)
    found, dominated = ratios(records, looks)
    edges = _edges([records[look.stop - 1].step for look in looks])
    rows = np.arange(len(layers) + 1) - 0.5
    axes.set_facecolor("white")
    axes.patch.set(hatch="////", edgecolor=_figure.GREY, linewidth=0)
    grey = np.ma.masked_where(~dominated, np.ones_like(found))
    axes.pcolormesh(edges, rows, grey, cmap=ListedColormap([_figure.PALE]), rasterized=True)
    low, high = _limits(found)
    shown = axes.pcolormesh(
        edges,
        rows,
        np.ma.masked_invalid(found),
        cmap="viridis",
        norm=LogNorm(low, high),
        rasterized=True,
    )
    _add_bar(axes, shown, 7 * height(len(layers)))
    _name_rows(axes, layers)
    if len(looks) == 1:
        axes.set_xticks([records[-1].step])
    _figure.dress(axes, _said(found, short_names(layers)), "step", "", letters=115)
    axes.grid(visible=False)
    _add_legend(axes, dominated, np.isnan(found) & ~dominated)


def _add_bar(axes: Axes, shown: QuadMesh, aspect: float) -> None:
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.01, fraction=0.03, aspect=aspect)
    bar.set_label("signal to noise (log)", fontsize=9, color=_figure.DARK)
    _figure.plain_numbers(bar.ax.yaxis)
    bar.ax.tick_params(which="both", labelsize=8, color=_figure.GREY)


def _name_rows(axes: Axes, layers: Sequence[str]) -> None:
    axes.set_yticks(range(len(layers)), short_names(layers))
    axes.set_ylim(len(layers) - 0.5, -0.5)  # the first layer is above


def _add_legend(axes: Axes, dominated: np.ndarray, unknown: np.ndarray) -> None:
    """Says what is no colour, below the map; only what there is."""
    from matplotlib.patches import Patch

    patches = []
    if dominated.any():
        patches.append(Patch(facecolor=_figure.PALE, label="noise dominates"))
    if unknown.any():
        patches.append(
            Patch(facecolor="white", edgecolor=_figure.GREY, hatch="////", label="not known")
        )
    if patches:
        axes.figure.legend(
            handles=patches, loc="outside lower right", fontsize=8, ncols=2, frameon=False
        )


def _edges(steps: Sequence[int]) -> np.ndarray:
    """Where the cells of windows that end at these steps begin and end."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (np.asarray(steps[1:]) + np.asarray(steps[:-1])) / 2
    first, last = steps[0] - (middles[0] - steps[0]), steps[-1] + (steps[-1] - middles[-1])
    return np.concatenate([[first], middles, [last]])


def _limits(found: np.ndarray) -> tuple[float, float]:
    """Of the colours: from 2 % to 98 % of the cells, a factor of 4 at least."""
    known = found[np.isfinite(found)]
    if not len(known):
        return 0.1, 1.0
    low, high = np.quantile(known, (0.02, 0.98))
    middle = np.sqrt(low * high)
    return min(low, middle / 2), max(high, middle * 2)


def _said(found: np.ndarray, names: Sequence[str]) -> str:
    """Which layers have most and least, of the last window that knows any."""
    some = np.isfinite(found).any(axis=0)
    if not some.any():
        return "Signal to noise by layer: nowhere above the noise"
    last = found[:, np.flatnonzero(some)[-1]]
    if len(names) == 1:
        return f"Signal to noise of {names[0]}: {last[0]:.2g} in one sample at the end"
    most, least = int(np.nanargmax(last)), int(np.nanargmin(last))
    lost = ", some below the noise" if np.isnan(last).any() else ""
    return (
        f"Signal to noise at the end: most in {names[most]} ({last[most]:.2g}), least in "
        f"{names[least]} ({last[least]:.2g}){lost}"
    )
