"""A forward pass that depends on state which it writes itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_pergrad.engines import why_not_alone
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case
from keras_pergrad.runs import influential_state, leaves

KIND = "state"


def state(case: Case) -> Iterator[Cause]:
    """One cause where no sample can be run alone, or the step, run again, is another."""
    reason = why_not_alone(case.run)
    if reason is not None:
        yield Cause(
            KIND,
            reason.split("'")[1],
            f"No sample can be run alone: {reason}.",
            "Read engine='jacobian', which runs the batch as it is.",
        )
    elif not case.report.coupling.passed and not _is_repeated(case):
        yield Cause(
            KIND,
            case.model.name,
            "The step, run again from the same variables, predicts something else: it depends on "
            "what no Keras variable holds.",
            "Keep state in `self.add_weight(trainable=False)`.",
        )


def written_state(case: Case) -> Iterator[Cause]:
    """A note on the variables that a forward pass both writes and depends on."""
    for path in influential_state(case.run):
        because = (
            "The forward pass depends on it and writes it, so that two passes in a row are of two "
            "functions. Here each starts from the value before the step, and puts it back."
        )
        yield Cause(KIND, path, because, "Nothing is wrong.")


def _is_repeated(case: Case) -> bool:
    """Whether the step, run again, predicts the same, up to what graphs round otherwise."""
    pair = _flat(case.run.y_pred), _flat(case.run.again().y_pred)
    return np.allclose(*pair, rtol=1e-3, atol=1e-6, equal_nan=True)


def _flat(structure: Any) -> np.ndarray:
    floats = [leaf for leaf in leaves(structure) if leaf.dtype.is_floating]
    return np.concatenate([np.ravel(each) for each in floats])
