"""Why two gradients differ, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich import box
from rich.table import Table

from keras_pergrad.errors import section_of

SHOWN = 8


@dataclass(frozen=True)
class Cause:
    """Why the two gradients differ, or what a person should know although they do not.

    Attributes:
        kind: the cause's name, which is that of its section in the documentation.
        where: the path of the layer, the name of the loss, or what else it is found in.
        because: how it breaks the equality.
        remedy: what to do.
        explains: the part of the difference that goes if the cause is undone. The parts of all
            causes and the report's `remainder` add up to about 1; None where the cause cannot be
            undone by itself, or there is no difference to explain.
        numbers: a table to `because`: column → one number a sample.
        samples: the samples' places in the batch, one a row of that table.
    """

    kind: str
    where: str
    because: str
    remedy: str
    explains: float | None = None
    numbers: dict[str, list[float]] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)

    @property
    def section(self) -> str:
        """Where the documentation explains it."""
        return section_of(self.kind)

    def lines(self) -> list[str | Table]:
        """What a report shows of it."""
        part = "" if self.explains is None else f" (explains {_part(self.explains)})"
        text = f"{self.kind} in {self.where!r}{part}. {self.because} {self.remedy}"
        return [f"{text} See {self.section}.", *([self._table()] if self.numbers else [])]

    def _table(self) -> Table:
        table = Table("sample", *self.numbers, box=box.SIMPLE_HEAD)
        rows = list(zip(*self.numbers.values(), strict=True))
        for sample, row in zip(self.samples, rows[:SHOWN], strict=False):
            table.add_row(str(sample), *map(_shown, row))
        if len(rows) > SHOWN:
            table.add_row("…", *("…" for _ in self.numbers))
        return table


def _part(explains: float) -> str:
    return "less than 1%" if 0 < abs(explains) < 0.01 else f"{explains:.0%}"


def _shown(number: float) -> str:
    """A sample that is masked as a whole has no weight."""
    return "–" if number != number else f"{number:.4g}"
