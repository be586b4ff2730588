"""What every way of running a batch again consists of; all but the first two in a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._recurrent import unroll_recurrent_layers
from keras_pergrad.runs._replay import Replay
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._tape import LossAndGradients, differentiate, summed
from keras_pergrad.runs._terms import no_penalties, overrides_compute_loss

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


def gradients(
    run: Run, loss_of: Callable[[], tf.Tensor], scale: tf.Tensor | None
) -> LossAndGradients:
    """What `loss_of` gives in a sandbox, and its gradients.

    Args:
        run: the run.
        loss_of: runs the model.
        scale: a factor on the loss before the backward pass, and off the gradients after it.
    """
    loss, found = differentiate(
        loss_of, run.model, run.variables, run.state, scale, run.unconnected
    )
    return tf.cast(loss, run.loss_dtype), found


def scale_of_the_batch(run: Run) -> tf.Tensor | None:
    """What the batch's scalar is multiplied by before the backward pass, or None."""
    if run.gradient_scale is None:
        return None
    return run.gradient_scale * tf.cast(tf.maximum(run.size, 1), run.gradient_scale.dtype)


def sandbox(run: Run) -> Sandbox:
    """A scope in which all variables are what they were before the run."""
    return Sandbox(run.state, run.variables)


def replay(run: Run, start: int = 0) -> Replay:
    """What tells another run this one's noise, and for contributions its denominators."""
    shared = run.of == "contribution"
    return Replay(run.recording, run.size, shared_divisors=shared, start=start)


def forward(run: Run, batch: Batch, *, unroll: bool) -> tuple[Any, list[tf.Tensor]]:
    """The predictions, and what the layers gave to `add_loss`."""
    if unroll:
        unroll_recurrent_layers(run.model)
    y_pred = _keras.forward(run.model, batch.x, run.training)
    return y_pred, _keras.added_losses(run.model)


def loss(
    run: Run,
    batch: Batch,
    y_pred: Any,
    terms: list[tf.Tensor],
    *,
    alone: bool = False,
    penalties: list[tf.Tensor] | None = None,
) -> tf.Tensor:
    """The scalar that is differentiated. Keras sums what `add_loss` was given as a vector.

    Args:
        run: the run.
        batch, y_pred: what the loss is of.
        terms: in the place of what the layers gave to `add_loss`.
        alone: whether the batch is one sample of the run's.
        penalties: in the place of the regularizers' values; zeros by default.
    """
    if alone and run.of == "contribution" and not overrides_compute_loss(run.model):
        terms = [t if t.shape.rank == 0 else t * tf.cast(run.size, t.dtype) for t in terms]
    penalties = no_penalties(run) if penalties is None else penalties
    with _keras.losses_replaced(run.model, [*terms, *penalties]):
        total = _keras.compute_loss(
            run.model, batch.x, batch.y, y_pred, batch.sample_weight, run.training
        )
    return summed(total, 1 if alone else batch.size)
