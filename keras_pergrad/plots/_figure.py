"""What all pictures share: a figure of no global state, colours that everyone can tell apart."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_pergrad.diagnostics import Record
from keras_pergrad.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design".
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
DARK, GREY, PALE = "#222222", "#767676", "#DDDDDD"
FEW = 30  # points, up to which each is marked


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, known to no window and to no `pyplot`.

    Raises:
        MissingExtraError: there is no matplotlib.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'Pictures need matplotlib: pip install "keras_pergrad[plots]". '
            f"Received: {type(error).__name__}: {error}."
        ) from error
    from keras_pergrad.plots._picture import Picture

    return Picture(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def dress(axes: Axes, title: str, x: str, y: str, *, letters: int = 80) -> None:
    """Gives axes their words, and takes away what is only ornament.

    Args:
        axes: that have been drawn.
        title: what is to be seen.
        x, y: what the axes are, with units.
        letters: how many a line of the title has room for.
    """
    lines = "\n".join(textwrap.wrap(title, letters))
    axes.set_title(lines, loc="left", fontsize=10.5, color=DARK)
    axes.set_xlabel(x, fontsize=9, color=DARK)
    axes.set_ylabel(y, fontsize=9, color=DARK)
    axes.tick_params(which="both", labelsize=8, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: Axes, **options: Any) -> None:
    """Names the lines, where they hide least."""
    axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", **options)


def legend_below(axes: Axes) -> None:
    """Names the lines below the axes, where they hide nothing."""
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def log_scale(axes: Axes, *values: Sequence[float] | np.ndarray) -> None:
    """A logarithmic axis of values, if any of them can be shown on one; a factor of 4 at least."""
    every = np.concatenate([np.ravel(each) for each in values])
    if not (every[np.isfinite(every)] > 0).any():
        return
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    middle = np.sqrt(low * high)
    axes.set_ylim(min(low, middle / 2), max(high, middle * 2))
    plain_numbers(axes.yaxis)


def plain_numbers(axis: Axis) -> None:
    """Writes 3 where a logarithmic axis would write 3 × 10⁰; between decades only on short axes."""

    def between(value: float, place: float) -> str:
        low, high = sorted(axis.get_view_interval())
        return short(value) if high < 40 * low and f"{value:e}"[0] in "235" else ""

    axis.set_major_formatter(lambda value, place: short(value))
    axis.set_minor_formatter(between)


def step_axis(axes: Axes, records: Sequence[Record]) -> str:
    """Whole steps, and dotted lines where epochs begin, if they are few; answers its words."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if len(records) == 1:
        axes.set_xlim(records[0].step - 1, records[0].step + 1)
    begins = [new.step for old, new in itertools.pairwise(records) if new.epoch != old.epoch]
    if not 0 < len(begins) <= FEW:
        return "step"
    for step in begins:
        axes.axvline(step, color=DARK, linewidth=1, linestyle=":", zorder=1.5)
    return "step (dotted: an epoch begins)"


def short(number: float) -> str:
    """Three digits, and no exponent below a million."""
    return f"{number:,.0f}" if 1000 <= number < 1e6 else f"{number:.3g}"


def marker(count: int) -> str | None:
    """Points are marked while they are few: a single one has no line."""
    return "o" if count <= FEW else None
