"""All pictures in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_pergrad.diagnostics import Monitor, OutlierRow, Record
from keras_pergrad.errors import PerGradError
from keras_pergrad.plots import _figure, _outliers, _snr
from keras_pergrad.plots._cosines import draw_cosines, has_cosines
from keras_pergrad.plots._noise_scale import draw_against_batch, draw_over_time
from keras_pergrad.plots._norms import draw_norms
from keras_pergrad.plots._samples import images_of
from keras_pergrad.plots._source import Source, records_of, rows_of
from keras_pergrad.plots._windows import layers_of, windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

TOP = 8  # rows of the outlier table
PLAIN = 4.0  # inches of a picture that grows with nothing


def dashboard(source: Source, x: Any = None, *, window: int | None = None) -> Figure:
    """Norms, noise scale, cosines, signal to noise of layers and outliers, in one figure.

    What was not measured, as cosines at level `"norms"`, is left out.

    Args:
        source: a monitor, or records.
        x: the inputs as given to `fit`, to show outliers where they are images.
        window: how many records noise scales look back over.

    Returns:
        A figure that is not shown; `figure.savefig(path)` keeps it.

    Raises:
        PerGradError: nothing was measured.
        DataError: `x` is no arrays with one row a sample.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import keras_pergrad as pg
        >>> values = {"grad_norm_median": 1.0, "grad_norm_p95": 2.0, "grad_norm_max": 3.0}
        >>> len(pg.plots.dashboard([pg.Record(0, 0, 8, 0.1, values)]).axes)
        3
    """
    records = records_of(source)
    rows = known_rows(source if isinstance(source, Monitor) else records)
    images = images_of(rows[:TOP], x)
    looks, layers = windows(len(records), window), layers_of(records)
    heights = [PLAIN, PLAIN]
    heights += [_snr.height(len(layers))] if layers else []
    heights += [_outliers.height(min(TOP, len(rows)))] if rows else []
    figure = _figure.new_figure(14, sum(heights) + 0.5)
    figure.suptitle(about(records), fontsize=13, color=_figure.DARK)
    parts = iter(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    _draw_lines(next(parts), next(parts), records, looks)
    if layers:
        _snr.draw_snr(next(parts).add_subplot(), records, looks)
    if rows:
        _outliers.draw_outliers(next(parts).add_subplot(), rows, images, TOP)
    return figure


def about(records: Sequence[Record]) -> str:
    """What was measured, in a line."""
    epochs = len({record.epoch for record in records})
    sizes = sorted({record.size for record in records})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"{len(records)} measured step{'s' * (len(records) != 1)} in {epochs} "
        f"epoch{'s' * (epochs != 1)}, batches of {size}"
    )


def _draw_lines(
    upper: SubFigure, lower: SubFigure, records: Sequence[Record], looks: Sequence[slice]
) -> None:
    first, second = upper.subplots(1, 2)
    draw_norms(first, records)
    draw_over_time(second, records, looks)
    if has_cosines(records):
        third, fourth = lower.subplots(1, 2)
        draw_cosines(fourth, records)
    else:
        third = lower.add_subplot()
    draw_against_batch(third, records, looks)


def known_rows(source: Source) -> list[OutlierRow]:
    """The rows that stood out; none where there was nothing to compare."""
    try:
        return rows_of(source)
    except PerGradError:
        return []
