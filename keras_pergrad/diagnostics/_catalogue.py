"""The diagnostics of each level."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from keras_pergrad.diagnostics._diagnostic import LEVELS, Diagnostic
from keras_pergrad.diagnostics._directions import (
    Contributions,
    Cosine,
    CosineWithOthers,
    InnerAndOrthogonalTest,
)
from keras_pergrad.diagnostics._groups import MODEL
from keras_pergrad.diagnostics._noise import Coherence, NoiseScale, NormTest
from keras_pergrad.diagnostics._norms import ClipFraction, Concentration, LargestNorm, NormQuantiles
from keras_pergrad.diagnostics._pairs import Pairs, ParameterSignal
from keras_pergrad.diagnostics._record import Record
from keras_pergrad.diagnostics._update import LossChange, PredictedChange
from keras_pergrad.errors import PerGradError

DIAGNOSTICS: tuple[type[Diagnostic], ...] = (
    NormQuantiles,
    LargestNorm,
    Concentration,
    NoiseScale,
    Coherence,
    NormTest,
    Cosine,
    CosineWithOthers,
    Contributions,
    InnerAndOrthogonalTest,
    PredictedChange,
    LossChange,
    Pairs,
    ParameterSignal,
)


def diagnostics_of(level: str, clip_norm: float | None = None) -> list[Diagnostic]:
    """Those that a level has, and all below it; and one of clipping, if a norm is given.

    Raises:
        PerGradError: there is no such level.
    """
    if level not in LEVELS:
        raise PerGradError(
            f"`level` is one of {', '.join(map(repr, LEVELS))}.{_nearest(level, LEVELS)} "
            f"Received: level={level!r}."
        )
    upto = LEVELS[: LEVELS.index(level) + 1]
    found: list[Diagnostic] = [each() for each in DIAGNOSTICS if each.level in upto]
    return found if clip_norm is None else [*found, ClipFraction(clip_norm)]


def expect_names(
    names: Sequence[str], known: Sequence[str], what: str = "diagnostic of this level"
) -> None:
    """Refuses a number that no diagnostic, or nothing else of that kind, makes.

    Raises:
        PerGradError: with the nearest names there are.
    """
    for name in names:
        if name not in known:
            raise PerGradError(
                f"No {what} is called so.{_nearest(name, known)} There are: "
                f"{', '.join(known)}. Received: {name!r}."
            )


def expect_group(records: Sequence[Record], group: str) -> None:
    """Refuses a layer that the records do not have.

    Raises:
        PerGradError: with the nearest names there are.
    """
    known = list(dict.fromkeys(name for each in records for name in (MODEL, *each.groups)))
    expect_names([group], known, "layer of the records")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
