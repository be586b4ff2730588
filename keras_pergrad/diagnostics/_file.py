"""Records in a file: one line of JSON for each measured step, appended and never rewritten."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from keras_pergrad.diagnostics._record import Record
from keras_pergrad.errors import DataError, PerGradWarning

_BEGIN = '{"step":'  # of every line


def load_records(path: str | os.PathLike) -> list[Record]:
    """The records that `GradientMonitor(jsonl=path)` wrote, in the order of their steps.

    A training that was resumed from a checkpoint measures some steps once more, and one that was
    begun anew all of them: of each step the last record counts, and those after it which an earlier
    line has told are dropped. A line that was cut off, as by a killed run, is left out.

    Args:
        path: of the file.

    Raises:
        DataError: there is no such file, or a line in its middle is no record.

    Example:
        >>> import keras_pergrad as pg
        >>> pg.load_records("no-such-file.jsonl")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        keras_pergrad.errors.DataError: There is no such file of records. Received: ...
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise DataError(f"There is no such file of records. Received: path={path!r}.") from error
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = Record.from_json(line)
        except ValueError as error:
            if number == len(lines) or _is_cut(line):
                continue
            raise DataError(
                f"Line {number} is no record of a measured step. Received: {line[:60]!r}."
            ) from error
        while records and records[-1].step >= record.step:
            records.pop()
        records.append(record)
    return records


def _is_cut(line: str) -> bool:
    """Whether a line that is no record began as one: it was cut, and another run has gone on."""
    return line.startswith(_BEGIN) or _BEGIN.startswith(line)


class RecordFile:
    """Appends records, each as it is made; a file that cannot be written is said once.

    Args:
        path: of the file; None writes nothing.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = None if path is None else Path(path)

    def append(self, records: list[Record]) -> None:
        """Writes the lines in one piece, so that a killed run leaves whole ones."""
        if self.path is None or not records:
            return
        text = "".join(f"{record.to_json()}\n" for record in records)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._end_of_the_line() + text)
        except OSError as error:
            warnings.warn(
                f"Records cannot be written, and training goes on without: {error}. "
                f"Received: jsonl={str(self.path)!r}.",
                PerGradWarning,
                stacklevel=2,
            )
            self.path = None

    def before(self, step: int) -> list[Record]:
        """The records of earlier steps that the file has, to go on from; none if there is none."""
        if self.path is None or not self.path.is_file() or step == 0:
            return []
        return [record for record in load_records(self.path) if record.step < step]

    def _end_of_the_line(self) -> str:
        """A newline, if the last line was cut off."""
        if self.path is None or not self.path.exists() or not self.path.stat().st_size:
            return ""
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return "" if file.read(1) == b"\n" else "\n"
