"""What a picture is made of: records, or a monitor that has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keras_pergrad.diagnostics import Monitor, OutlierRow, OutlierTable, Record
from keras_pergrad.errors import PerGradError

TOP_K = 32  # rows that records alone bring into a table

Source = Monitor | Iterable[Record]


def records_of(source: Source) -> list[Record]:
    """The measured steps.

    Raises:
        PerGradError: there is none, or something else is among them.
    """
    found = _listed(source.records if isinstance(source, Monitor) else source)
    for each in found:
        if not isinstance(each, Record):
            raise PerGradError(
                "A picture is made of a monitor, or of its records, as `load_records` reads them. "
                f"Received: {type(each).__name__}."
            )
    if not found:
        raise PerGradError(
            "Nothing was measured yet: a monitor measures in `fit(callbacks=[monitor])`, each "
            "`every`-th step, the first included. Received: 0 records."
        )
    return found


def rows_of(source: Source | Iterable[OutlierRow]) -> list[OutlierRow]:
    """The rows that stood out, the worst first.

    Raises:
        PerGradError: there is none.
    """
    if isinstance(source, Monitor):
        rows = source.outliers()
    else:
        found = _listed(source)
        are_rows = all(isinstance(each, OutlierRow) for each in found)
        rows = found if are_rows else _gathered(records_of(found))
    if not rows:
        raise PerGradError(
            "Nothing was measured yet, or no step had two samples to compare. Received: 0 rows."
        )
    return rows


def _listed(source: Iterable) -> list:
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | dict):
        raise PerGradError(
            "A picture is made of a monitor, or of a list of its records or rows. "
            f"Received: {type(source).__name__}."
        )
    return list(source)


def _gathered(records: Sequence[Record]) -> list[OutlierRow]:
    table = OutlierTable(TOP_K)
    for record in records:
        table.put(record.rows)
    return table.rows
