"""Where a trace of the model and what it does say different things."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import Meeting
from keras_pergrad.equivalence.causes.instruments import Case, place_of


def meetings_of(case: Case) -> list[Meeting] | None:
    """Where the trace sees samples meet; None if the model cannot be traced so."""
    try:
        return case.trace.meetings()
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return None


def seen_to_meet(case: Case) -> bool:
    """Whether samples meet in the model or the loss, or nobody can tell."""
    return meetings_of(case) is None or bool(case.mixing or only_traced(case))


def only_traced(case: Case) -> list[str]:
    """Remarks on what the trace sees and no change of other samples showed, one a place.

    Not on an operation of which nothing is known: there the trace sees nothing.
    """
    if case.size < 2 or not case.calls.bears_samples(case.size):
        return []
    places: dict[str, Meeting] = {}
    for meeting in meetings_of(case) or []:
        place = _place(case, meeting) if meeting.certain else None
        if place is not None:
            places.setdefault(place, meeting)
    return [
        f"The trace sees samples meet in {each.operation.type} {each.name!r} of {place}, and no "
        "change of other samples moved its output."
        for place, each in places.items()
    ]


def _place(case: Case, meeting: Meeting) -> str | None:
    """Where samples meet; None where what the samples do has shown it, too."""
    if meeting.layer is not None:
        named = [each.layer for each in case.mixing] + [each.layer for each in case.placing]
        where = place_of(meeting.layer)
        of_terms = [term.where for term in case.terms if term.kind in ("sum", "mean", "other")]
        return None if _is_in(meeting.layer, named) or where in of_terms else repr(where)
    if meeting.of_forward:
        return "the forward pass"
    return "the loss" if all(each.kind == "plain" for each in case.outputs) else None


def _is_in(layer: keras.Layer, named: list[keras.Layer]) -> bool:
    return any(layer is inner for outer in named for inner in _keras.layers_of(outer))
