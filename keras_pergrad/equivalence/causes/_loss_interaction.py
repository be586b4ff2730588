"""Samples that meet in the loss: no loss of a sample exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._sample_interaction import KIND
from keras_pergrad.equivalence.causes.instruments import Case, Output
from keras_pergrad.runs import leaves

_REMEDY = (
    "Read shares, which add up all the same: `per_sample_gradients` with engine='factored'. To "
    "have the loss of a sample, compute it within each sample and take the mean."
)


def loss_interaction(case: Case) -> Iterator[Cause]:
    """One cause for every loss that ties samples to each other, in predictions or in `add_loss`."""
    for output in case.outputs:
        if case.tied[output.number] and output.where not in case.blamed:
            explains = case.difference.undo(loss=True)
            yield Cause(KIND, output.where, _BECAUSE, _remedy(case, output), explains)
    for term in case.terms:
        if term.kind == "other":
            yield Cause(KIND, term.where, _TERM, _REMEDY, case.difference.leave_out(term))


_BECAUSE = (
    "Its derivative in one sample's predictions depends on the other samples, so that it is no sum "
    "of losses of the samples; a sample alone has another loss, not a part of this one."
)
_TERM = (
    "What it gives to `add_loss` is neither the sum nor the mean of what the samples give alone: "
    "it is computed across samples."
)


def _remedy(case: Case, output: Output) -> str:
    separating = _separating(case, output)
    if separating is None:
        return _REMEDY
    return f"With axis={separating} it separates, one number a sample. {_REMEDY}"


def _separating(case: Case, output: Output) -> tuple[int, ...] | None:
    """Axes that the loss can be given so that it separates: all but the samples'."""
    if output.loss is None or "axis" not in output.loss.get_config():
        return None
    y_pred, y = (leaves(each) for each in (case.run.y_pred, case.run.batch.y))
    if len(y) <= output.number:
        return None
    y_true, predicted = y[output.number], y_pred[output.number]
    axes = tuple(range(1, predicted.shape.rank))
    loss = type(output.loss).from_config({**output.loss.get_config(), "axis": axes})
    return axes if axes and _separates(loss, y_true, predicted) else None


def _separates(loss: keras.Loss, y_true: Any, y_pred: tf.Tensor) -> bool:
    """Whether its derivative in a sample's predictions is that of the sample alone, up to scale."""
    batch = _derivative(loss, y_true, y_pred)
    for k in range(batch.shape[0]):
        alone = _derivative(loss, y_true[k : k + 1], y_pred[k : k + 1])[0]
        part = batch[k] * batch.shape[0]
        if not np.allclose(part, alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max()):
            return False
    return True


def _derivative(loss: keras.Loss, y_true: Any, y_pred: tf.Tensor) -> np.ndarray:
    y_pred = tf.identity(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = tf.reduce_sum(loss(y_true, y_pred))
    return tape.gradient(value, y_pred).numpy().reshape(y_pred.shape[0], -1)
