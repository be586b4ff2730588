"""Pictures and tables in one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_pergrad import diagnostics
from keras_pergrad.diagnostics import Monitor, OutlierRow, Record
from keras_pergrad.plots._cosines import cosines, has_cosines
from keras_pergrad.plots._dashboard import about, known_rows
from keras_pergrad.plots._noise_scale import noise_scale
from keras_pergrad.plots._norms import norms, numbers
from keras_pergrad.plots._page import Image, Picture, Table, page
from keras_pergrad.plots._samples import images_of
from keras_pergrad.plots._snr import snr
from keras_pergrad.plots._source import Source, records_of
from keras_pergrad.plots._windows import layers_of

TITLE = "Per-sample gradients of a training"


def report(source: Source, path: str | os.PathLike, x: Any = None) -> Path:
    """Writes one HTML file with all pictures and tables, which needs nothing but a browser.

    Tables of epochs, layers and outliers are sorted by a click on a head, and can be searched. The
    file loads nothing from anywhere.

    Args:
        source: a monitor, or records.
        path: of the file; folders that are missing are made.
        x: the inputs as given to `fit`, to show outliers where they are images.

    Returns:
        The path.

    Raises:
        PerGradError: nothing was measured.
        DataError: `x` is no arrays with one row a sample.
        MissingExtraError: there is no matplotlib.

    Example:
        >>> import tempfile, keras_pergrad as pg
        >>> values = {"grad_norm_median": 1.0, "grad_norm_p95": 2.0, "grad_norm_max": 3.0}
        >>> record = pg.Record(0, 0, 8, 0.1, values, noise={"model": [8.0, 2.0]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pg.plots.report([record], f"{folder}/report.html").name
        'report.html'
    """
    records = records_of(source)
    rows = known_rows(source if isinstance(source, Monitor) else records)
    lines = [about(records), f"Over all of them: {diagnostics.noise_scale(records).advice}"]
    parts: list[Picture | Table] = [*_pictures(records), *_tables(records, rows, x)]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(TITLE, lines, parts), encoding="utf-8")
    return path


def _pictures(records: Sequence[Record]) -> list[Picture]:
    """Each with what its axes say in their titles, for those who cannot see it."""
    made = {"Norms": norms(records), "Noise scale": noise_scale(records)}
    if has_cosines(records):
        made["Cosines"] = cosines(records)
    if layers_of(records):
        made["Signal to noise"] = snr(records)
    return [
        Picture(title, figure, "; ".join(filter(None, (a.get_title("left") for a in figure.axes))))
        for title, figure in made.items()
    ]


def _tables(records: Sequence[Record], rows: Sequence[OutlierRow], x: Any) -> list[Table]:
    made = [_epochs(records)]
    if layers_of(records):
        made.append(_layers(records))
    if rows:
        made.append(_outliers(rows, x))
    return [each for each in made if each.rows]


def _epochs(records: Sequence[Record]) -> Table:
    found = diagnostics.by_epoch(records)
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [
        [epoch, *(values.get(name, np.nan) for name in names)]
        for epoch, values in found.items()
        if values
    ]
    return Table(
        "Epochs",
        "Of all measured steps of an epoch; a ratio is one of means.",
        ["epoch", *names],
        rows,
    )


def _layers(records: Sequence[Record]) -> Table:
    rows: list[list] = []
    for layer in layers_of(records):
        found = diagnostics.noise_scale(records, layer)
        medians = numbers(records, "grad_norm_median", layer)
        known = medians[np.isfinite(medians)]
        norm = float(known.mean()) if len(known) else np.nan
        signal = 1 / found.value if found.value else np.nan
        rows.append([layer, norm, found.value, found.low, found.high, signal])
    names = ["layer", "median norm", "noise scale", "low", "high", "signal to noise"]
    return Table(
        "Layers",
        "Over all measured steps; low and high: a 95 % interval of the noise "
        "scale. – where noise dominates.",
        names,
        rows,
        frozenset({"layer"}),
    )


def _outliers(rows: Sequence[OutlierRow], x: Any) -> Table:
    names = ["id", "sample", "step", "epoch", "norm", "z", "loss", "layer", "contribution", "seen"]
    made: list[list] = [
        [
            row.id,
            Image(image, f"sample {row.id}"),
            row.step,
            row.epoch,
            row.norm,
            row.z,
            row.loss,
            row.layer,
            row.contribution,
            row.seen,
        ]
        for row, image in zip(rows, images_of(rows, x), strict=True)
    ]
    return Table(
        "Outliers",
        "The rows of the data with the largest gradients for their step; z: "
        "robust deviations of log ‖gradient‖ from the step's median; contribution: the "
        "part of the update.",
        names,
        made,
        frozenset({"layer"}),
    )
