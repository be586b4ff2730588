"""A forward pass that depends on state which it writes itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_pergrad.engines import why_not_alone
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, place_of
from keras_pergrad.runs import influences, leaves

KIND = "state"
_KEEP = "Keep it in `self.add_weight(trainable=False)`, which every run puts back."


def state(case: Case) -> Iterator[Cause]:
    """One cause where no sample can be run alone, or the step, run again, is another."""
    for each in case.unsteady:
        for place in each.state:
            yield Cause(KIND, place.where, _kept(place_of(each.call.layer), place.where), _KEEP)
    reason = why_not_alone(case.run)
    if reason is not None:
        yield Cause(
            KIND,
            reason.split("'")[1],
            f"No sample can be run alone: {reason}.",
            "Read engine='jacobian', which runs the batch as it is.",
        )
    elif not (case.unsteady or case.report.coupling.passed or _is_repeated(case)):
        yield Cause(
            KIND,
            case.model.name,
            "The step, run again from the same variables, predicts something else: it depends on "
            "what no Keras variable holds.",
            _KEEP,
        )


def _kept(layer: str, place: str) -> str:
    return (
        f"{layer!r}, called twice on the same samples, gives two results, and the same one once "
        f"{place!r} is put back: its forward pass writes that and depends on it, in a Python "
        "object that no run knows to put back."
    )


def written_state(case: Case) -> Iterator[Cause]:
    """A note on the variables and attributes that a forward pass both writes and depends on."""
    start = (
        "The forward pass depends on it and writes it, so that two passes in a row are of two "
        "functions. Here each starts from the value before the step, and puts it back."
    )
    variables, attributes = influences(case.run)
    for path in variables:
        yield Cause(KIND, path, start, "Nothing is wrong.")
    for place in attributes:
        because = f"{start} As a Python attribute it stands still in a compiled step."
        yield Cause(KIND, place, because, _KEEP)


def _is_repeated(case: Case) -> bool:
    """Whether the step, run again, predicts the same, up to what graphs round otherwise."""
    pair = _flat(case.run.y_pred), _flat(case.run.again().y_pred)
    return np.allclose(*pair, rtol=1e-3, atol=1e-6, equal_nan=True)


def _flat(structure: Any) -> np.ndarray:
    floats = [leaf for leaf in leaves(structure) if leaf.dtype.is_floating]
    return np.concatenate([np.ravel(each) for each in floats])
