"""The whole batch, once more: differentiated, observed, changed, or at other predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._own import sum_of_own_losses
from keras_pergrad.runs._sample_by_sample import layers_apart
from keras_pergrad.runs._tape import LossAndGradients, differentiate_observed
from keras_pergrad.runs._terms import overrides_compute_loss, owned, penalties

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


@dataclass(frozen=True)
class Outcome:
    """What a run of the whole batch gave: its predictions, and its loss without `batch_term`."""

    y_pred: Any
    loss: tf.Tensor


def batch_gradient(run: Run, *, of_samples: bool) -> LossAndGradients:
    """The batch's scalar and its gradient; without the terms that no sample owns, or with them."""
    free = run.free_terms

    def loss_of() -> tf.Tensor:
        told = _parts.replay(run)
        with told.of(None):
            y_pred, terms = _parts.forward(run, run.batch, unroll=False)
            if of_samples:
                loss = _parts.loss(run, run.batch, y_pred, owned(terms, free))
            else:
                loss = _parts.loss(run, run.batch, y_pred, terms, penalties=penalties(run))
        told.expect_the_end()
        return loss

    return _parts.gradients(run, loss_of, _parts.scale_of_the_batch(run))


def observe(run: Run, observer: Observer) -> None:
    """The samples' part of the batch's scalar, differentiated for an observer."""

    def loss_of() -> tf.Tensor:
        told = _parts.replay(run)
        with told.of(None), sum_of_own_losses(run.sums_own_losses):
            y_pred, terms = _parts.forward(run, run.batch, unroll=True)
            loss = _parts.loss(run, run.batch, y_pred, owned(terms, run.free_terms))
        told.expect_the_end()
        return loss

    differentiate_observed(
        loss_of,
        run.model,
        run.variables,
        run.state,
        run.gradient_scale if run.sums_own_losses else _parts.scale_of_the_batch(run),
        run.unconnected,
        observer,
    )


def again(run: Run, batch: Batch, apart: Iterable[keras.Layer] = ()) -> Outcome:
    """Another batch in the place of the run's, with the same noise; some layers may be apart."""
    told = _parts.replay(run)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None):
        with layers_apart(run, apart, told):
            y_pred, terms = _parts.forward(run, batch, unroll=False)
        return Outcome(y_pred, _parts.loss(run, batch, y_pred, owned(terms, run.free_terms)))


def loss_with(
    run: Run, y_pred: Any, terms: list[tf.Tensor], penalties: list[tf.Tensor] | None = None
) -> tf.Tensor:
    """The batch's scalar at other predictions and with other terms."""
    uses_layers = overrides_compute_loss(run.model)
    told = _parts.replay(run, 0 if uses_layers else run.recording.forward_draws)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None):
        if uses_layers:  # it may read what the forward pass left on the model
            _parts.forward(run, run.batch, unroll=False)
        return _parts.loss(run, run.batch, y_pred, terms, penalties=penalties)
