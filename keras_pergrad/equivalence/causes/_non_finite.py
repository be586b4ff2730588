"""NaN or Inf in the gradients of some samples: which, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, place_of

KIND = "non_finite"


def non_finite(case: Case) -> Iterator[Cause]:
    """One cause, at the first layer whose output is not finite although what it is given is."""
    finite = not case.alone or all(np.isfinite(each).all() for each in case.own)
    if not case.report.non_finite and finite:
        return
    indices = case.report.non_finite_indices
    shown = ", ".join(map(str, indices))
    if case.report.non_finite > len(indices):
        shown += f", … ({case.report.non_finite} in all)"
    which = f"NaN or Inf in the gradients of sample {shown}. " if shown else ""
    where, text = _place(case)
    remedy = "Look at the rows, or keep the operation from its edge: a log of 0, a norm of 0."
    yield Cause(KIND, where, which + text, remedy)


def _place(case: Case) -> tuple[str, str]:
    if any(not is_finite(leaf) for leaf in case.run.batch.leaves):
        return "the batch", "They are in the data already."
    for variable, value in zip(case.run.variables, case.run.weights, strict=True):
        if not is_finite(value):
            return variable.path, "The weight itself is not finite."
    for call in case.calls.walk():
        if not is_finite(call.outputs) and is_finite(call.arguments):
            return place_of(call.layer), "Its output is the first that is not finite."
    if not is_finite(case.run.y_pred):
        return "the predictions", "The forward pass gives them."
    if not bool(tf.math.is_finite(case.run.batch_gradient()[0])):
        return "the loss", "All predictions are finite, and the loss is not."
    if case.alone and not is_finite(case.run_alone.losses):
        return "the loss", _of_samples_alone(case)
    return _of_backward_pass(case)


def _of_samples_alone(case: Case) -> str:
    """What is said of a loss that is finite for the batch alone."""
    wrong = np.flatnonzero(~np.isfinite(case.run_alone.losses.numpy()))
    shown = ", ".join(str(case.samples[k]) for k in wrong[:8])
    return (
        f"It is finite for the batch, and not for sample {shown} alone: it divides by a number "
        "that is made of the batch, and is 0 for one without the others. Divide each sample's loss "
        "by its own number, kept from 0, and then by the number of samples."
    )


def _of_backward_pass(case: Case) -> tuple[str, str]:
    """The last weight, which the backward pass comes to first."""
    for variable, own in reversed([*zip(case.run.variables, case.own, strict=True)]):
        if not is_finite(own):
            text = "Predictions and loss are finite: it comes of the backward pass, here first."
            return variable.path, text
    return "the batch", "The batch's gradient is not finite, though every sample's is."


def is_finite(structure: Any) -> bool:
    """Whether no tensor of a structure has a NaN or Inf."""
    leaves = [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, tf.Tensor)]
    return all(bool(tf.reduce_all(tf.math.is_finite(e))) for e in leaves if e.dtype.is_floating)
