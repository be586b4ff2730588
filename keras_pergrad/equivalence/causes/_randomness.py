"""Noise that is drawn anew each time the step is run, past what can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, Unsteady, place_of

KIND = "randomness"
_TWO = (
    "Called twice on the same samples, with the same weights, state and seeds, it gives two results"
)
_LOSS = "Computed twice of the same predictions and targets, the loss is two numbers"
_NOWHERE = (
    "it draws noise where nobody can record it, and no two runs are of one function (or keeps "
    "something that nobody can copy and put back)"
)
_REMEDY = (
    "Draw with keras.random and a keras.random.SeedGenerator, outside of loops and Python "
    "functions; such draws are replayed sample by sample."
)


def randomness(case: Case) -> Iterator[Cause]:
    """One cause for every layer whose calls cannot be repeated, by other than state."""
    for each in case.unsteady:
        if not each.state:
            yield Cause(KIND, place_of(each.call.layer), f"{_TWO}: {_how(each)}.", _REMEDY)
    if not case.unsteady and not case.loss_repeats:
        yield Cause(KIND, case.name_of_loss, f"{_LOSS}: {_NOWHERE}.", _REMEDY)


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


def _how(unsteady: Unsteady) -> str:
    if not unsteady.keeps:
        return _NOWHERE
    places = ", ".join(repr(place.where) for place in unsteady.keeps)
    return f"it draws noise from the generator in {places}, and no two runs are of one function"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
