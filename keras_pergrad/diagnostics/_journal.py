"""All that is kept of what was measured of a training."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keras_pergrad.diagnostics._condensed import Condensed, records
from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._file import RecordFile
from keras_pergrad.diagnostics._kept import Kept
from keras_pergrad.diagnostics._outliers import OutlierTable, Spread
from keras_pergrad.diagnostics._probe import Probe
from keras_pergrad.diagnostics._sample_sums import SampleSums
from keras_pergrad.diagnostics._step import MeasuredStep
from keras_pergrad.diagnostics._summary import Summary
from keras_pergrad.diagnostics._terms import Terms, Window


class Journal:
    """Records, the rows that stood out, sums by row, and the file that records are written to.

    Args:
        diagnostics: what records have.
        top_k: how many rows the outlier table has.
        max_ids: how many rows sums are kept of.
        path: of the file; None for none.

    Attributes:
        records: the last 10,000, or about 64 MiB of them.
        table: the rows that stood out.
        samples: the sums by row.
        steps_of_epoch: how many were measured in it so far.
    """

    def __init__(
        self,
        diagnostics: Sequence[Diagnostic],
        top_k: int,
        max_ids: int,
        path: str | os.PathLike | None,
    ):
        self.records = Kept()
        self.table, self.samples = OutlierTable(top_k), SampleSums(max_ids)
        self._terms, self._top_k = Terms(diagnostics), top_k
        self._file, self._window = RecordFile(path), Window(self._terms)
        self._summary: Summary | None = None
        self._epoch = self.steps_of_epoch = 0

    def begin(self) -> None:
        """A training begins, perhaps of another model."""
        self._summary = None

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins, whose numbers are of its own steps."""
        self._epoch, self._window, self.steps_of_epoch = epoch, Window(self._terms), 0

    def go_on_from(self, step: int) -> None:
        """Takes what the file has of the steps before `step`, in the place of what is here."""
        if self._file.path is None:
            return
        self.records.clear()
        self.table = OutlierTable(self._top_k)
        for record in self._file.before(step):
            self.records.extend([record])
            self.table.put(record.rows)
            self.table.spread = Spread(int(record.spread[0]), *record.spread[1:])
            if record.epoch == self._epoch:
                self._window.add(self._terms.joined(record.terms))

    def take_in(self, steps: Sequence[MeasuredStep], probe: Probe) -> list[Condensed]:
        """Condenses measured steps, and keeps what it has made."""
        if self._summary is None:
            self._summary = Summary(self._terms, probe.groups, probe.parameters)
        made = [self._summary.condensed(step, self._epoch, self.table) for step in steps]
        for step, condensed in zip(steps, made, strict=True):
            self.samples.add(step)
            if condensed.terms is not None:
                self._window.add(condensed.terms[:, 0])
        self.records.extend(made)
        self.steps_of_epoch += len(made)
        if self._file.path is not None:
            self._file.append(records(made))
        return made

    def of_epoch(self, names: Sequence[str]) -> dict[str, float]:
        """Some of the model's numbers, of the epoch so far."""
        return self._window.values(names)
