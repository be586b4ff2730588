"""A difference that nothing known accounts for."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case

KIND = "unexplained"
ENOUGH = (
    0.05  # what may remain of a difference: the parts are measured on a few samples, in float32
)


def unexplained(case: Case, found: list[Cause], ruled_out: list[str]) -> Iterator[Cause]:
    """One cause where none was found, or those found leave something."""
    if found and (not case.difference.exists or case.difference.remainder <= ENOUGH):
        return
    remedy = (
        "`report.save(path)` writes a file that reproduces it; please open an issue with it. "
        "engine='loop' is the slow reference to compare with."
    )
    yield Cause(KIND, _where(case), _because(case, found, ruled_out), remedy)


def _where(case: Case) -> str:
    return f"engine={case.report.engine!r}" if _is_engine(case) else case.model.name


def _is_engine(case: Case) -> bool:
    """Whether the samples' gradients are right, and those of the engine are not."""
    return not case.difference.exists and not case.report.oracle.passed


def _because(case: Case, found: list[Cause], ruled_out: list[str]) -> str:
    out = f"Looked for and not found: {', '.join(ruled_out)}."
    if not found and _is_engine(case):
        return (
            "The samples' own gradients, each run alone by the loop, do have the batch's as their "
            f"mean; what the engine computes is something else. {out}"
        )
    if not found and not case.difference.exists:
        return (
            f"On the {case.size} of {case.whole} samples that were looked into, there is no such "
            f"difference. {out}"
        )
    if not found:
        return f"No known cause accounts for the difference. {out}"
    return f"The causes found leave {case.difference.remainder:.0%} of the difference. {out}"
