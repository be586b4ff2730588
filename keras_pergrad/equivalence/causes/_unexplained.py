"""A difference that nothing known accounts for."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._case import Case

KIND = "unexplained"
ENOUGH = (
    0.05  # what may remain of a difference: the parts are measured on a few samples, in float32
)


def unexplained(case: Case, found: list[Cause], ruled_out: list[str]) -> Iterator[Cause]:
    """One cause where none was found, or those found leave something."""
    if found and (not case.differs or case.remainder <= ENOUGH):
        return
    remedy = (
        "`report.save(path)` writes a file that reproduces it; please open an issue with it. "
        "engine='loop' is the slow reference to compare with."
    )
    yield Cause(KIND, _where(case), _because(case, found, ruled_out), remedy)


def _where(case: Case) -> str:
    engine = not case.differs and not case.report.oracle.passed
    return f"engine={case.report.engine!r}" if engine else case.model.name


def _because(case: Case, found: list[Cause], ruled_out: list[str]) -> str:
    out = f"Looked for and not found: {', '.join(ruled_out)}."
    if not case.differs and not found and case.report.oracle.passed:
        return (
            f"On the {case.size} samples of the batch that were looked into, there is no such "
            f"difference: a few others make it. Call `check_equivalence` with fewer. {out}"
        )
    if not case.differs and not found:
        return (
            "The samples' own gradients, each run alone by the loop, do have the batch's as their "
            f"mean; what the engine computes is something else. {out}"
        )
    if not found:
        return f"No known cause accounts for the difference. {out}"
    return f"The causes found leave {case.remainder:.0%} of the difference. {out}"
