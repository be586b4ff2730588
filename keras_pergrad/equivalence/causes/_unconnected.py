"""Weights that no gradient reaches, each with its reason. No error of the check."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_pergrad import _keras
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case

KIND = "unconnected"
_CONNECT = "If it is meant to train, connect it to the loss; else freeze it or leave it out."
_FLAT = (
    "the loss is computed from it, but every derivative is exactly zero: it is in a branch that is "
    "not taken, behind something flat, or cancels out"
)


def unconnected(case: Case) -> Iterator[Cause]:
    """A note on each trainable weight without a gradient, and one on all that are frozen."""
    reasons = case.report.unconnected | case.run.unconnected
    reasons |= {path: _FLAT for path in _zero(case) if path not in reasons}
    for path, reason in reasons.items():
        yield Cause(KIND, path, f"No gradient reaches it: {reason}.", _CONNECT)
    frozen = _frozen(case.model)
    if frozen:
        shown = ", ".join(frozen[:3]) + (", …" if len(frozen) > 3 else "")
        because = f"Frozen, so that it gets no gradient: {shown} ({len(frozen)} in all)."
        yield Cause(KIND, frozen[0], because, "Nothing is wrong, if that is meant.")


def _zero(case: Case) -> list[str]:
    """The weights with a gradient of zeros, in the batch and for every sample."""
    own = case.own if case.alone else case.batch
    gradients = zip(case.run.variables, case.batch, own, strict=True)
    return [v.path for v, batch, each in gradients if not np.any(batch) and not np.any(each)]


def _frozen(model: keras.Model) -> list[str]:
    """The weights of frozen layers."""
    layers = [layer for layer in _keras.layers_of(model) if not layer.trainable]
    return list(dict.fromkeys(v.path for layer in layers for v in layer.weights))
