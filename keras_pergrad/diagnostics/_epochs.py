"""The numbers of each epoch, made of records alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_pergrad.diagnostics._catalogue import DIAGNOSTICS
from keras_pergrad.diagnostics._norms import ClipFraction
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._terms import Terms, Window


def by_epoch(records: Iterable[Record]) -> dict[int, dict[str, float]]:
    """Epoch → number → value: a ratio is one of means over the epoch's measured steps.

    Args:
        records: as a monitor has them, or `load_records` reads them.
    """
    # What clipping counted was counted at its own norm: here the counts are averaged alone.
    known = [*(each() for each in DIAGNOSTICS), ClipFraction(np.nan)]
    windows: dict[int, Window] = {}
    terms, told = Terms(known), set[str]()
    for record in records:
        windows.setdefault(record.epoch, Window(terms)).add(terms.joined(record.terms))
        told.update(record.terms)
    names = [name for each in known if each.key in told for name in each.names]
    return {epoch: window.values(names) for epoch, window in windows.items()}
