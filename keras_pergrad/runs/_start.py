"""How a run begins by hand: what it needs, and the batch run once without a trace."""

from __future__ import annotations

import contextlib
from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.errors import PerGradError
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._no_samples import no_samples_told
from keras_pergrad.runs._numbers import expect_numbers
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._run import Run
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._scale import gradient_scale
from keras_pergrad.runs._state import (
    every_variable,
    in_float64,
    nothing_else_kept,
    read,
    trained_variables,
)
from keras_pergrad.runs._tape import summed
from keras_pergrad.runs._terms import expect_the_same_terms, overrides_compute_loss
from keras_pergrad.runs._unreduced import unreduced_losses_told


def start(
    model: keras.Model,
    batch: Batch,
    *,
    of: str,
    training: bool = True,
    double: bool = False,
    other_draws: bool = False,
) -> Run:
    """Runs the batch once, without a trace, and records it.

    Args:
        model: the model.
        batch: the batch.
        of: `"contribution"` or `"own"`.
        training: the `training` argument of the model's call.
        double: whether the weights are read as float64, inside `computing_in_float64`.
        other_draws: whether it draws other noise than a run without; the same each time.

    Raises:
        DataError: the batch has no samples, and the model does not run on none.
        PerGradError: the model is not built, has no loss or no trainable weights.
    """
    prepare(model, batch)
    expect_numbers(model, batch)
    state = read(every_variable(model))
    if other_draws:
        state = [(variable, _keras.far_seed(variable, value)) for variable, value in state]
    run = Run(
        model,
        batch,
        trained_variables(model),
        in_float64(state) if double else state,
        Recording(),
        training=training,
        of=of,
        gradient_scale=gradient_scale(model, batch.size),
    )
    box = Sandbox(run.state, run.variables)
    with nothing_else_kept(model):
        if other_draws:
            _keras.skip_seeds()
        with no_samples_told(model, batch), box, run.recording.listen():
            run.y_pred = _keras.forward(model, batch.x, training)
            run.terms = _keras.added_losses(model)
        run.recording.forward_ends()
        data = batch.x, batch.y, run.y_pred, batch.sample_weight
        with Recording().listen(), unreduced_losses_told(model):
            _keras.build_loss(model, *data)
        with box, run.recording.listen(), unreduced_losses_told(model):
            summed(_keras.compute_loss(model, *data, training), batch.size)
            expect_the_same_terms(run)
    return run


def build_if_unbuilt(model: Any, batch: Batch) -> None:
    """Builds a model without weights from the shapes of samples, as `fit` does; if Keras can."""
    if isinstance(model, keras.Model) and not model.built and model.compiled:
        any_size = batch.map(lambda e: keras.KerasTensor((None, *e.shape[1:]), e.dtype.name))
        with contextlib.suppress(RuntimeError, ValueError):  # `prepare` says what to do
            _keras.build_for(model, any_size.x, any_size.y, any_size.sample_weight)


def prepare(model: Any, batch: Batch) -> None:
    """Builds what only a training step runs; refuses a model that cannot make one.

    Raises:
        PerGradError: one clear sentence.
    """
    if not isinstance(model, keras.Model):
        raise PerGradError(f"A keras.Model is needed. Received: model of type {type(model)}.")
    if not model.built:
        raise PerGradError(
            "The model has no weights yet. Call it once on a batch, `model(x)`, or build it with "
            f"`model.build(input_shape)`. Received: model={model.name!r}, unbuilt."
        )
    if not trained_variables(model):
        raise PerGradError(
            "The model has no trainable weights, so there is nothing to take a gradient of. "
            f"Set `trainable = True` on a layer. Received: model={model.name!r}."
        )
    has_loss = overrides_compute_loss(model) or _keras.loss_objects(model)
    if not has_loss and not model.compiled:
        raise PerGradError(
            "The model has no loss yet. Call `model.compile(loss=...)`, or override "
            f"`compute_loss`. Received: model={model.name!r}, not compiled."
        )
    _keras.build_for_training(model, batch.x)
