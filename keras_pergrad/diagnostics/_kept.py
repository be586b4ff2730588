"""The records of a training in memory, of which the oldest make room for the newest."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import overload

from keras_pergrad.diagnostics._condensed import Condensed, records
from keras_pergrad.diagnostics._record import Record

KEPT, ROOM = 10_000, 64 * 2**20  # records in memory, and bytes; a file has them all
_BLOCK = 256  # records that are made at once
_A_NUMBER = 50  # bytes of a number in lists and dicts


class Kept(Sequence[Record]):
    """The last records, at most 10,000 and about 64 MiB; each is made anew when it is asked for.

    Args:
        most: how many records.
        room: how many bytes.
    """

    def __init__(self, most: int = KEPT, room: int = ROOM):
        self._most, self._room = most, room
        self._steps: deque[Condensed | Record] = deque()
        self.nbytes = 0

    def extend(self, steps: Iterable[Condensed | Record]) -> None:
        """Takes in some; the last one is kept however large it is."""
        for step in steps:
            self._steps.append(step)
            self.nbytes += _size(step)
            while len(self._steps) > self._most or (self.nbytes > self._room and len(self) > 1):
                self.nbytes -= _size(self._steps.popleft())

    def clear(self) -> None:
        """Forgets all."""
        self._steps.clear()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Record]:
        return _made(list(self._steps))

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        if isinstance(place, slice):
            return list(_made(list(self._steps)[place]))
        return next(_made([self._steps[place]]))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records of measured steps>"


def _made(steps: list[Condensed | Record]) -> Iterator[Record]:
    """Their records, of which many at once are made faster."""
    for _, alike in itertools.groupby(steps, key=lambda each: id(getattr(each, "form", None))):
        while block := list(itertools.islice(alike, _BLOCK)):
            condensed = [each for each in block if isinstance(each, Condensed)]
            yield from (
                records(condensed)
                if condensed
                else [each for each in block if isinstance(each, Record)]
            )


def _size(step: Condensed | Record) -> int:
    """About how many bytes one takes."""
    if isinstance(step, Condensed):
        return step.nbytes
    tables: list[Sized] = [step.values, step.non_finite, *step.terms.values()]
    tables += [*step.groups.values(), *step.histograms.values()]
    numbers = sum(1 + len(each) for each in tables)
    return _A_NUMBER * (20 + numbers + 10 * len(step.rows))
