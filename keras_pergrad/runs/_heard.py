"""The losses that Keras reduces in a run, and by which denominators."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._own import own_divisors
from keras_pergrad.runs._recording import divisor_of

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


class Reduced(NamedTuple):
    """A loss that Keras has reduced.

    Attributes:
        kind: Keras' name of the reduction, or None.
        masked, weighted: whether there were a mask and sample weights.
        divisor: the batch's denominator; None for a loss that came as a scalar.
        own: `[n]`, those of the samples alone, or None.
    """

    kind: str | None
    masked: bool
    weighted: bool
    divisor: float | None
    own: list[float] | None


def heard_reductions(run: Run) -> list[Reduced]:
    """What Keras reduces in the loss of a run, in its order. Eagerly."""
    heard: list[Reduced] = []

    def hear(reduction: _keras.Reduction) -> tf.Tensor:
        divisor = divisor_of(reduction)
        own = None if divisor is None else own_divisors(reduction)
        heard.append(
            Reduced(
                None if reduction.is_none else reduction.kind,
                reduction.mask is not None,
                reduction.sample_weight is not None,
                None if divisor is None else float(divisor),
                None if own is None else [float(each) for each in own],
            )
        )
        return reduction.by_keras()

    told = _parts.replay(run)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None):
        y_pred, terms = _parts.forward(run, run.batch, unroll=False)
        with _keras.reductions_by(hear):
            _parts.loss(run, run.batch, y_pred, terms)
    return heard
