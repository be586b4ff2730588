"""How a run begins as a part of the user's own training step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.gradients import wide
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._dtypes import dtypes_of
from keras_pergrad.runs._numbers import expect_numbers
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._run import Run
from keras_pergrad.runs._scale import gradient_scale, loss_scale, without_scale
from keras_pergrad.runs._state import State, every_variable, read, trained_variables
from keras_pergrad.runs._tape import dense, summed
from keras_pergrad.runs._terms import expect_the_same_terms, overrides_compute_loss
from keras_pergrad.runs._unreduced import unreduced_losses_told


def run_and_differentiate(
    model: keras.Model,
    batch: Batch,
    *,
    of: str,
    observer: Callable[[Run], Observer] | None = None,
    losses: bool = False,
) -> tuple[Run, tf.Tensor, list[tf.Tensor | None]]:
    """Runs a training step's forward pass, loss and gradient for real, recorded.

    In Keras' own order and with its own calls. The step's writes to state, seeds and metrics are
    the model's; weights are not updated.

    Args:
        model, batch: what is run.
        of: as of `Run`.
        observer: from the run to who looks on, if it can be observed.
        losses: whether the run is to know its samples' losses.

    Returns:
        The run, with the weights' values before any update; the loss; and the gradients of
        `model.trainable_weights`, multiplied by the optimizer's loss scale.
    """
    expect_numbers(model, batch)
    run = Run(model, batch, trained_variables(model), _state_before(model), Recording(), of=of)
    begin = len(_operations())
    with tf.GradientTape() as tape, _keras.writes_remembered() as written:
        with run.recording.listen():
            loss, forward = _forward_and_loss(run)
        scaled = loss if model.optimizer is None else model.optimizer.scale_loss(loss)
    operations = _operations()[begin:]
    known = {id(variable) for variable, _ in run.state}
    run.state = [*run.state, *read([v for v in run.variables if id(v) not in known])]
    run.state += _written_elsewhere(run, written)
    run.gradient_scale = gradient_scale(model, run.size)
    at: list[tf.Tensor] = []
    readings = _keras.readings(operations, run.variables)
    if operations:
        run.seen_dtypes = dtypes_of(operations, itertools.chain(*readings), loss)
    if observer is not None and _can_be_observed(run):
        run.observer = observer(run)
        at = run.observer.choose(operations, readings, forward - begin)
        _keras.never_freed(tf.compat.v1.get_default_graph())
    results = [each.result for each in run.recording.reduced] if losses else []
    asked = [list(model.trainable_weights), at, results]
    gradients, seen, rates = tape.gradient(scaled, asked)
    if losses:
        scale = loss_scale(model)
        run.loss_rates = [
            r if r is None or scale is None else r / tf.cast(scale, r.dtype) for r in rates
        ]
    if run.observer is not None:
        run.observer.gradients = [wide(each) for each in dense(seen, at)]
        run.observer.scale = loss_scale(model)
        run.observer.totals = without_loss_scale(run, gradients)
    return run, loss, gradients


def _operations() -> Sequence[tf.Operation]:
    """Those of the graph that is traced; none eagerly."""
    eager = tf.executing_eagerly()
    return [] if eager else tf.compat.v1.get_default_graph().get_operations()


def _forward_and_loss(run: Run) -> tuple[tf.Tensor, int]:
    """Keras' calls, in its order, and the number of operations before the loss."""
    model, batch = run.model, run.batch
    run.y_pred = _keras.forward(model, batch.x, training=True)
    run.terms = _keras.added_losses(model)
    run.recording.forward_ends()
    forward = len(_operations())
    data = batch.x, batch.y, run.y_pred, batch.sample_weight
    with unreduced_losses_told(model):
        loss = _keras.compute_loss(model, *data, training=True)
    summed(loss, batch.size)  # refuses what is no loss
    expect_the_same_terms(run)
    return loss, forward


def _can_be_observed(run: Run) -> bool:
    """Whether it was traced, and has only what the trace of the samples' part alone has, too."""
    alike = not (run.penalized and overrides_compute_loss(run.model))
    return alike and not tf.executing_eagerly()


def without_loss_scale(run: Run, gradients: list[tf.Tensor | None]) -> list[tf.Tensor]:
    """The gradients of `run.variables`, dense, zero where there is none, loss scale taken out."""
    scale = loss_scale(run.model)
    found = {id(v): g for v, g in zip(run.model.trainable_weights, gradients, strict=True)}
    return without_scale(dense([found[id(v)] for v in run.variables], run.weights), scale)


def _state_before(model: keras.Model) -> State:
    """The state that a forward pass may write: all but the weights, and weights that it does."""
    weights = {id(variable) for variable in trained_variables(model)}
    writing = keras.layers.SpectralNormalization  # the one that assigns weights as it is called
    layers = [each for each in _keras.layers_of(model) if isinstance(each, writing)]
    written = {id(v) for layer in layers for v in layer.weights}
    return read([v for v in every_variable(model) if id(v) not in weights - written])


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
                f"so that its value before is out of reach. Received: {variable.path!r}.",
                causes=("state",),
            )
    return found
