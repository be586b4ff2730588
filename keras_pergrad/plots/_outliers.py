"""The rows of the data that stood out, as a table with their images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_pergrad.diagnostics import OutlierRow
from keras_pergrad.plots import _figure
from keras_pergrad.plots._names import short_names
from keras_pergrad.plots._samples import images_of
from keras_pergrad.plots._source import Source, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD = ("id", "step", "epoch", "norm", "z", "loss", "layer", "of update", "seen")
LEFT = "layer"  # words begin at the left, numbers end at the right


def outliers(source: Source | Iterable[OutlierRow], x: Any = None, *, top: int = 12) -> Figure:
    """The table of the rows with the largest gradients for their step, the worst first.

    Args:
        source: a monitor, its records, or rows as `monitor.outliers()` gives.
        x: the inputs as given to `fit`, arrays with one row a sample: rows are found in them by
            their ids, or by their fingerprints, and shown where they are images.
        top: how many rows at most.

    Returns:
        A figure, not shown.

    Raises:
        PerGradError: nothing was measured.
        DataError: `x` is no arrays with one row a sample.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> rows = [pg.OutlierRow(7, 0, 3, 12.0, 5.0, 2.3, "dense")]
        >>> figure = pg.plots.outliers(rows)
        >>> "7" in [each.get_text() for each in figure.axes[0].texts]
        True
    """
    rows = rows_of(source)
    chosen = rows[:top]
    figure = _figure.new_figure(10, height(len(chosen)))
    draw_outliers(figure.add_subplot(), rows, images_of(chosen, x), top)
    return figure


def height(rows: int) -> float:
    """Inches that so many rows need."""
    return 1.0 + 0.42 * rows


def cells(rows: Sequence[OutlierRow]) -> tuple[list[str], list[list[str]]]:
    """The head and the words of each row; a column in which nothing is known is left out."""
    layers = short_names([row.layer for row in rows])
    table = [
        [
            str(row.id),
            str(row.step),
            str(row.epoch),
            f"{row.norm:.3g}",
            f"{row.z:.1f}",
            number(row.loss),
            layer,
            number(100 * row.contribution, "+.1f", " %"),
            str(row.seen),
        ]
        for row, layer in zip(rows, layers, strict=True)
    ]
    kept = [k for k in range(len(HEAD)) if any(line[k] != "–" for line in table)]
    return [HEAD[k] for k in kept], [[line[k] for k in kept] for line in table]


def number(value: float, form: str = ".3g", unit: str = "") -> str:
    """A number; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{value:{form}}{unit}"


def draw_outliers(
    axes: Axes, rows: Sequence[OutlierRow], images: Sequence[np.ndarray | None], top: int
) -> None:
    """Draws the first `top` rows on axes, each with its image if there is one."""
    head, table = cells(rows[:top])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(table) - 0.4, -1.5)
    axes.set_axis_off()
    pictured = any(image is not None for image in images)
    places = _places([head, *table], 0.09 if pictured else 0.0)
    for k, line in enumerate([head, *table]):
        _draw_line(axes, k - 1, line, head, places)
    for k, image in enumerate(images):
        if image is not None:
            _draw_image(axes, k, image)
    _figure.dress(axes, _said(rows, len(table)), "", "", letters=120)


def _places(lines: Sequence[Sequence[str]], start: float) -> list[tuple[float, float]]:
    """Where each column begins and ends: as wide as its longest word, and the same between."""
    widths = [max(map(len, column)) + 3 for column in zip(*lines, strict=True)]
    edges = start + (1 - start) * np.cumsum([0, *widths]) / sum(widths)
    return [(float(a), float(b)) for a, b in itertools.pairwise(edges)]


def _draw_line(
    axes: Axes,
    row: int,
    line: Sequence[str],
    head: Sequence[str],
    places: Sequence[tuple[float, float]],
) -> None:
    is_head = row < 0
    for word, name, (begin, end) in zip(line, head, places, strict=True):
        left = name == LEFT
        axes.text(
            begin + 0.025 if left else end - 0.005,
            row,
            word,
            ha="left" if left else "right",
            va="center",
            fontsize=8.5,
            color=_figure.GREY if is_head else _figure.DARK,
        )
    axes.axhline(
        row + 0.5,
        color=_figure.DARK if is_head else _figure.PALE,
        linewidth=0.8 if is_head else 0.5,
    )


def _draw_image(axes: Axes, row: int, image: np.ndarray) -> None:
    inset = axes.inset_axes((0.0, row - 0.45, 0.08, 0.9), transform=axes.transData)
    inset.imshow(image, cmap="gray", vmin=0, vmax=1)
    inset.set_anchor("W")
    inset.set_axis_off()


def _said(rows: Sequence[OutlierRow], shown: int) -> str:
    count = f"{shown} of {len(rows)}" if shown < len(rows) else f"{shown}"
    what = "rows have the largest gradients" if len(rows) > 1 else "row has the largest gradient"
    return (
        f"{count} {what} of their steps; z: robust deviations of log ‖gradient‖ "
        "from the step's median"
    )
