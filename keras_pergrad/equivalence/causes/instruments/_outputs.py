"""What the loss does with each output of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from keras_pergrad import _keras
from keras_pergrad.runs import (
    Reduced,
    Run,
    heard_reductions,
    leaves,
    loss_of_keras,
    weights_in_loss,
)

Kind = Literal["plain", "scaled", "weighted", "tied"]


@dataclass(frozen=True)
class Output:
    """One output of the model, and its loss.

    Attributes:
        number: of the output, among those of floating-point numbers.
        where: the name of its loss, `compute_loss` where that is the user's own.
        kind: what the loss makes of the derivatives that the samples have alone: `"plain"` their
            mean; `"scaled"` that times one number, or `"weighted"` with one number a sample;
            `"tied"` something else, as samples tied to each other.
        weights: `[n]`, those numbers; NaN for a sample with a loss of derivative zero.
        compiled: the loss as Keras calls it, or None where the user's code does.
        reduced: what Keras has reduced for it, or None.
    """

    number: int
    where: str
    kind: Kind
    weights: np.ndarray
    compiled: _keras.CompiledLoss | None
    reduced: Reduced | None

    @property
    def loss(self) -> keras.Loss | None:
        """The Keras loss, or None."""
        return None if self.compiled is None else self.compiled.loss

    @property
    def by_keras(self) -> bool:
        """Whether Keras reduces it: no `compute_loss` does, nor a function of one number."""
        return self.reduced is not None and self.reduced.divisor is not None

    def is_weighed_by_keras(self, size: int, limit: float) -> bool:
        """Whether its weights in a batch of `size` are what Keras divides by, and nothing else."""
        reduced = self.reduced
        if reduced is None or not reduced.divisor or reduced.own is None:
            return False
        known = np.isfinite(self.weights)
        expected = size * np.asarray(reduced.own) / reduced.divisor
        apart = np.abs(self.weights - expected)[known]
        return bool((apart <= limit * np.abs(expected[known])).all())


def find_outputs(run: Run, limit: float, samples: Sequence[int] | None = None) -> list[Output]:
    """The outputs of a run.

    Args:
        run: the run.
        limit: the largest relative error that rounding explains.
        samples: those that are looked at, all by default.
    """
    compiled = _compiled(run)
    heard = heard_reductions(run)
    known = len(heard) == len(compiled)
    names = _names(run, compiled)
    outputs = []
    for k, each in enumerate(weights_in_loss(run, samples)):
        weights, left = np.asarray(each.weights), np.asarray(each.residuals)
        here = compiled.get(k)
        reduced = heard[here.number] if known and here is not None else None
        kind = _kind(weights, left, limit)
        outputs.append(Output(k, names(k), kind, weights, here, reduced))
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


def _compiled(run: Run) -> dict[int, _keras.CompiledLoss]:
    """The losses of Keras' own `compute_loss`, by the number of the output; none of several."""
    if loss_of_keras(run.model) is None:
        return {}
    floats = [leaf.dtype.is_floating for leaf in leaves(run.y_pred)]
    number = {leaf: sum(floats[:leaf]) for leaf, floating in enumerate(floats) if floating}
    found = _keras.compiled_losses(run.model, run.y_pred)
    placed = {number[each.leaf]: each for each in found if each.leaf in number}
    return placed if len(placed) == len(found) else {}


def _names(run: Run, compiled: dict[int, _keras.CompiledLoss]) -> Callable[[int], str]:
    """What the loss of an output is called."""
    outputs = leaves(run.y_pred)
    names = _keras.output_names(run.model)
    names = names if len(names) == len(outputs) else []

    def name(k: int) -> str:
        here = compiled.get(k)
        if here is None:
            own = type(run.model).compute_loss is not keras.Model.compute_loss
            return "compute_loss" if own else f"the loss of output {k}"
        of = here.name or (names[here.leaf] if names and here.leaf is not None else None)
        return f"{of}: {here.loss.name}" if of and len(outputs) > 1 else here.loss.name

    return name
