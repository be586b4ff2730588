"""Noise that is drawn anew each time the step is run, past what can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, place_of
from keras_pergrad.runs import Call, Run, leaves

KIND = "randomness"
_BECAUSE = (
    "Called twice on the same samples, with the same weights, state and seeds, it gives two "
    "results: it draws noise where nobody can record it, and no two runs are of one function."
)
_REMEDY = (
    "Draw with keras.random and a keras.random.SeedGenerator, outside of loops and Python "
    "functions; such draws are replayed sample by sample."
)


def randomness(case: Case) -> Iterator[Cause]:
    """One cause for every layer whose calls cannot be repeated."""
    for call in find_unsteady(case.run, case.calls):
        yield Cause(KIND, place_of(call.layer), _BECAUSE, _REMEDY)


def replayed_noise(case: Case) -> Iterator[Cause]:
    """A note on the layers that draw noise, which is held while samples are run alone."""
    for call in case.calls.walk():
        draws = call.drawn[1] - call.drawn[0] - sum(i.drawn[1] - i.drawn[0] for i in call.inner)
        if draws:
            because = (
                f"It draws noise, {_times(draws)} in a step; a sample alone gets its row of the "
                "batch's noise, without which the two gradients would differ."
            )
            yield Cause(KIND, place_of(call.layer), because, "Nothing is wrong.")


def find_unsteady(run: Run, call: Call) -> list[Call]:
    """The innermost calls that, made twice, give two results."""
    if not _differs(call.again(run, call.arguments), call.again(run, call.arguments)):
        return []
    found = [each for inner in call.inner for each in find_unsteady(run, inner)]
    return found or [call]


def _differs(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return any(
        bool(tf.reduce_any(a != b)) for a, b in pairs if isinstance(a, tf.Tensor)
    ) and not _has_nan(one)


def _has_nan(structure: Any) -> bool:
    floats = [e for e in leaves(structure) if isinstance(e, tf.Tensor) and e.dtype.is_floating]
    return any(bool(tf.reduce_any(tf.math.is_nan(each))) for each in floats)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
