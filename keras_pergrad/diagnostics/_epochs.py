"""The numbers of each epoch, made of records alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_pergrad.diagnostics._catalogue import DIAGNOSTICS
from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._norms import ClipFraction
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._summary import Window


def by_epoch(records: Iterable[Record]) -> dict[int, dict[str, float]]:
    """Epoch → number → value: a ratio is one of means over the epoch's measured steps.

    Args:
        records: as a monitor has them, or `load_records` reads them.
    """
    # What clipping counted was counted at its own norm: here the counts are averaged alone.
    known = [*(each() for each in DIAGNOSTICS), ClipFraction(np.nan)]
    windows: dict[int, Window] = {}
    for record in records:
        windows.setdefault(record.epoch, Window(known)).add(record)
    return {
        epoch: {
            name: float(value)
            for each in known
            if type(each).__name__ in window.terms
            for name, value in zip(each.names, _values(each, window), strict=True)
        }
        for epoch, window in windows.items()
    }


def _values(diagnostic: Diagnostic, window: Window) -> np.ndarray:
    return diagnostic.values(window.terms[type(diagnostic).__name__][:, None])[:, 0]
