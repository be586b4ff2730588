"""Weights that no gradient reaches, each with its reason. No error of the check."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._case import Case

KIND = "unconnected"
_REMEDY = (
    "If it is meant to train, connect it to the loss; else freeze it, `layer.trainable = False`, or "
    "leave it out."
)


def unconnected(case: Case) -> Iterator[Cause]:
    """A note on every trainable weight without a gradient, and on the frozen ones together."""
    known = case.report.unconnected | case.run.unconnected
    for path, reason in known.items():
        yield Cause(KIND, path, f"No gradient reaches it: {reason}.", _REMEDY)
    for variable, own in zip(case.run.variables, case.own if case.alone else [], strict=False):
        if variable.path not in known and not np.any(own):
            because = (
                "Every sample's gradient is exactly zero, though the loss is computed from it: "
                "it is in a branch that is not taken, or behind something flat."
            )
            yield Cause(KIND, variable.path, because, _REMEDY)
    frozen = [variable.path for variable in case.model.variables if _is_frozen(case, variable)]
    if frozen:
        shown = ", ".join(frozen[:3]) + (", …" if len(frozen) > 3 else "")
        because = f"{len(frozen)} weights are frozen, and get no gradient: {shown}."
        yield Cause(KIND, frozen[0], because, "Nothing is wrong, if that is meant.")


def _is_frozen(case: Case, variable) -> bool:
    """Whether it would be trained if its layer were not frozen."""
    trained = {id(each) for each in case.run.variables}
    return id(variable) not in trained and variable.trainable and variable.dtype != "uint32"
