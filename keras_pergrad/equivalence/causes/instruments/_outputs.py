"""What the loss does with each output of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from keras_pergrad import _keras
from keras_pergrad.runs import Reduced, Run, heard_reductions, loss_of_keras, weights_in_loss

Kind = Literal["plain", "scaled", "weighted", "tied"]


@dataclass(frozen=True)
class Output:
    """One output of the model, and its loss.

    Attributes:
        number: of the output.
        where: the name of its loss, `compute_loss` where that is the user's own.
        kind: what the loss makes of the derivatives that the samples have alone: `"plain"` their
            mean; `"scaled"` that times one number, or `"weighted"` with one number a sample;
            `"tied"` something else, as samples tied to each other.
        weights: `[n]`, those numbers; NaN for a sample with a loss of derivative zero.
        loss: the Keras loss, or None where the user's code reduces.
        reduced: what Keras has reduced for it, or None.
    """

    number: int
    where: str
    kind: Kind
    weights: np.ndarray
    loss: keras.Loss | None
    reduced: Reduced | None

    @property
    def by_keras(self) -> bool:
        """Whether Keras reduces it: no `compute_loss` does, nor a function of one number."""
        return self.reduced is not None and self.reduced.divisor is not None


def find_outputs(run: Run, limit: float, samples: Sequence[int] | None = None) -> list[Output]:
    """The outputs of a run.

    Args:
        run: the run.
        limit: the largest relative error that rounding explains.
        samples: those that are looked at, all by default.
    """
    found, names = weights_in_loss(run, samples), _losses(run.model)
    heard = heard_reductions(run)
    aligned = len(names) == len(found) == len(heard)
    outputs = []
    for k, each in enumerate(found):
        where, loss = names[k] if aligned else _unnamed(run.model, k)
        weights, left = np.asarray(each.weights), np.asarray(each.residuals)
        reduced = heard[k] if aligned else None
        outputs.append(Output(k, where, _kind(weights, left, limit), weights, loss, reduced))
    return outputs


def _kind(weights: np.ndarray, residuals: np.ndarray, limit: float) -> Kind:
    """A factor fits to rounding, of which a derivative has more than a gradient."""
    limit = 100 * limit
    known = weights[np.isfinite(weights)]
    if (residuals > limit).any():
        return "tied"
    if not len(known) or (np.abs(known - 1) <= limit).all():
        return "plain"
    even = np.ptp(known) <= limit * np.abs(known).max()
    return "scaled" if even else "weighted"


def _losses(model: keras.Model) -> list[tuple[str, keras.Loss]]:
    """The losses of Keras' own `compute_loss`, one an output, with their names."""
    if loss_of_keras(model) is None:
        return []
    losses = _keras.loss_objects(model)[1:]
    several = len(losses) > 1
    names = _keras.output_names(model) if several else []
    named = [f"{name}: " for name in names] if len(names) == len(losses) else [""] * len(losses)
    return [(f"{name}{loss.name}", loss) for name, loss in zip(named, losses, strict=True)]


def _unnamed(model: keras.Model, k: int) -> tuple[str, None]:
    own = type(model).compute_loss is not keras.Model.compute_loss
    return ("compute_loss" if own else f"the loss of output {k}"), None
