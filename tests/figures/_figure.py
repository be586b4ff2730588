"""One figure of the scoreboard."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, what was wanted, and whether it was reached.

    Attributes:
        what: the figure in words.
        value: what was measured.
        target: what was wanted.
        reached: whether `value` meets `target`.
        missed: the cases that did not.
    """

    what: str
    value: str
    target: str
    reached: bool
    missed: tuple[str, ...] = ()
