"""How a run begins: by hand, or as a part of the user's own training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import PerGradError, UnsupportedError
from keras_pergrad.gradients import wide
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._numbers import expect_numbers
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._run import Run
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._tape import State, dense, summed, without_scale
from keras_pergrad.runs._unreduced import unreduced_losses_told


def trained_variables(model: keras.Model) -> list[keras.Variable]:
    """The model's trainable weights; not those that a gradient overwrites, as float8 scales."""
    return [v for v in model.trainable_variables if not v.overwrite_with_gradient]


def read(variables: list[keras.Variable]) -> State:
    """The variables with their present values."""
    return [(variable, tf.identity(tf.convert_to_tensor(variable))) for variable in variables]


def _in_float64(state: State) -> State:
    return [(v, tf.cast(x, tf.float64) if x.dtype.is_floating else x) for v, x in state]


def every_variable(model: keras.Model) -> list[keras.Variable]:
    """All that a run can read or write: weights, state, metrics, and Keras' global seed."""
    found = [*model.variables, *model.metrics_variables, *_keras.global_seed_state()]
    return list({id(variable): variable for variable in found}.values())


def start(
    model: keras.Model, batch: Batch, *, of: str, training: bool = True, double: bool = False
) -> Run:
    """Runs the batch once, without a trace, and records it.

    Args:
        model: the model.
        batch: the batch.
        of: `"contribution"` or `"own"`.
        training: the `training` argument of the model's call.
        double: whether the weights are read as float64, inside `computing_in_float64`.

    Raises:
        PerGradError: the model is not built, has no loss or no trainable weights.
    """
    prepare(model, batch)
    expect_numbers(model, batch)
    state = read(every_variable(model))
    run = Run(
        model,
        batch,
        trained_variables(model),
        _in_float64(state) if double else state,
        Recording(),
        training=training,
        of=of,
        gradient_scale=gradient_scale(model, batch.size),
    )
    box = Sandbox(run.state, run.variables)
    with _nothing_else_kept(model):
        with box, run.recording.listen():
            run.y_pred = _keras.forward(model, batch.x, training)
            run.terms = _keras.added_losses(model)
        run.recording.forward_ends()
        data = batch.x, batch.y, run.y_pred, batch.sample_weight
        with Recording().listen(), unreduced_losses_told(model):
            _keras.build_loss(model, *data)
        with box, run.recording.listen(), unreduced_losses_told(model):
            summed(_keras.compute_loss(model, *data, training), batch.size)
            _expect_the_same_terms(run)
    return run


def run_and_differentiate(
    model: keras.Model,
    batch: Batch,
    *,
    of: str,
    observer: Callable[[Run], Observer] | None = None,
) -> tuple[Run, tf.Tensor, list[tf.Tensor | None]]:
    """Runs a training step's forward pass, loss and gradient for real, recorded.

    In Keras' own order and with its own calls. The step's writes to state, seeds and metrics are
    the model's; weights are not updated.

    Returns:
        The run, with the weights' values before any update; the loss; and the gradients of
        `model.trainable_weights`, multiplied by the optimizer's loss scale.
    """
    expect_numbers(model, batch)
    run = Run(model, batch, trained_variables(model), _state_before(model), Recording(), of=of)
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    begin = 0 if graph is None else len(graph.get_operations())
    with tf.GradientTape() as tape, _keras.writes_remembered() as written:
        with run.recording.listen():
            run.y_pred = _keras.forward(model, batch.x, training=True)
            run.terms = _keras.added_losses(model)
            run.recording.forward_ends()
            forward = 0 if graph is None else len(graph.get_operations()) - begin
            with unreduced_losses_told(model):
                loss = _keras.compute_loss(
                    model, batch.x, batch.y, run.y_pred, batch.sample_weight, training=True
                )
            summed(loss, batch.size)  # refuses what is no loss
            _expect_the_same_terms(run)
        scaled = loss if model.optimizer is None else model.optimizer.scale_loss(loss)
    operations = [] if graph is None else graph.get_operations()[begin:]
    known = {id(variable) for variable, _ in run.state}
    run.state = [*run.state, *read([v for v in run.variables if id(v) not in known])]
    run.state += _written_elsewhere(run, written)
    run.gradient_scale = gradient_scale(model, run.size)
    at: list[tf.Tensor] = []
    # Only what the trace of the samples' part alone has in it, too, can be found in this one.
    alike = not (run.penalized and _keras.overrides(model, "compute_loss"))
    if observer is not None and graph is not None and alike:
        run.observer = observer(run)
        readings = _keras.readings(operations, run.variables)
        at = run.observer.choose(operations, readings, forward)
    gradients, seen = tape.gradient(scaled, [list(model.trainable_weights), at])
    if run.observer is not None:
        found = [wide(each) for each in dense(seen, at)]
        run.observer.gradients = without_scale(found, _loss_scale(model))
        run.observer.totals = without_loss_scale(run, gradients)
    return run, loss, gradients


def without_loss_scale(run: Run, gradients: list[tf.Tensor | None]) -> list[tf.Tensor]:
    """The gradients of `run.variables`, dense, zero where there is none, loss scale taken out."""
    scale = _loss_scale(run.model)
    found = {id(v): g for v, g in zip(run.model.trainable_weights, gradients, strict=True)}
    return without_scale(dense([found[id(v)] for v in run.variables], run.weights), scale)


def _loss_scale(model: keras.Model) -> tf.Tensor:
    one = tf.ones(())
    return one if model.optimizer is None else model.optimizer.scale_loss(one)


def _expect_the_same_terms(run: Run) -> None:
    """Refuses a `compute_loss` that calls layers again and so replaces what they added.

    Raises:
        UnsupportedError: what is added can be told neither from the first call nor the second.
    """
    now = _keras.added_losses(run.model)
    if len(now) != len(run.terms) or any(a is not b for a, b in zip(now, run.terms, strict=True)):
        raise UnsupportedError(
            "`compute_loss` calls layers again, and what they give to `add_loss` (or an activity "
            "regularizer) takes the place of what the forward pass gave. Return all that the loss "
            f"needs from `call`. Received: model={run.model.name!r}."
        )


def _written_elsewhere(run: Run, written: dict[int, tuple[keras.Variable, tf.Tensor]]) -> State:
    """What the run wrote outside of the model, as on a loss, with the values before.

    Raises:
        UnsupportedError: a value that was read inside a branch or a loop.
    """
    known = {id(variable) for variable, _ in run.state}
    known |= {id(variable) for variable in every_variable(run.model)}
    found = [(v, value) for key, (v, value) in written.items() if key not in known]
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    for variable, value in found:
        if here is not None and value.graph is not here:
            raise UnsupportedError(
                "A variable that the model does not track is written inside a branch or a loop, "
                f"so that its value before is out of reach. Received: {variable.path!r}."
            )
    return found


@contextlib.contextmanager
def state_restored(model: keras.Model) -> Iterator[None]:
    """Puts back all that a real run writes: variables, seeds, and layers' attributes."""
    before = read(every_variable(model))
    with _nothing_else_kept(model), _keras.writes_remembered() as written:
        try:
            yield
        finally:
            for variable, value in [*written.values(), *before]:
                variable.assign(value)


@contextlib.contextmanager
def _nothing_else_kept(model: keras.Model) -> Iterator[None]:
    """Puts back what is no Keras variable: attributes, seeds, and variables of TensorFlow's own.

    In a graph there is nothing to put back: what its trace leaves aside is refused by the engines.
    """
    eager = tf.executing_eagerly()
    raw = [(v, tf.identity(v)) for v in _keras.raw_variables(model)] if eager else []
    with _keras.attributes_kept(model):
        try:
            yield
        finally:
            for variable, value in raw:
                variable.assign(value)


def _state_before(model: keras.Model) -> State:
    """The state that a forward pass may write: all but the weights, and weights that it does."""
    weights = {id(variable) for variable in trained_variables(model)}
    written = {id(v) for layer in _keras.layers_that_write_weights(model) for v in layer.weights}
    return read([v for v in every_variable(model) if id(v) not in weights - written])


def gradient_scale(model: keras.Model, size: Any) -> tf.Tensor | None:
    """The loss scale over `B` for a model that computes in float16, else None.

    The scale that the optimizer's loss scaling would use on the batch: a sample's loss is about
    `B` times as large as its contribution, and would overflow where the batch's does not.
    """
    if not any(layer.compute_dtype == "float16" for layer in _keras.layers_of(model)):
        return None
    one = tf.ones((), tf.float32)
    scaled = one if model.optimizer is None else model.optimizer.scale_loss(one)
    return scaled / tf.cast(tf.maximum(size, 1), tf.float32)


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
    if not _keras.has_loss(model) and not model.compiled:
        raise PerGradError(
            "The model has no loss yet. Call `model.compile(loss=...)`, or override "
            f"`compute_loss`. Received: model={model.name!r}, not compiled."
        )
    _keras.build_for_training(model, batch.x)
