"""The training step of `TensorFlowTrainer`, with a measurement before the update.

Read in Keras 3.15. The forward pass, the loss, the gradients, the update and the metrics are
Keras' own calls in Keras' own order; a test compares weights, state and history bit by bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.aggregators import get_aggregator
from keras_pergrad.diagnostics import Probe
from keras_pergrad.engines import Separation, get_engine, sample_gradients
from keras_pergrad.equivalence import (
    Tolerance,
    badness,
    gather_evidence,
    layers_with_batch_statistics,
    subject_of,
)
from keras_pergrad.errors import EquivalenceWarning
from keras_pergrad.gradients import Blocks
from keras_pergrad.models._settings import PerSample
from keras_pergrad.models._stash import Again, stash_for
from keras_pergrad.models._watch import Watch
from keras_pergrad.runs import (
    Batch,
    Observer,
    Run,
    leaves,
    run_and_differentiate,
    without_loss_scale,
)

ORACLE_SAMPLES = 3


def measured_train_step(
    model: keras.Model,
    data: Any,
    settings: PerSample,
    watch: Watch,
    probes: Sequence[Probe] = (),
    ids: tf.Tensor | None = None,
) -> dict[str, Any]:
    """One training step, with what `settings` and `probes` ask for; returns the metrics, as Keras.

    Args:
        model, data: as of Keras' step, without ids.
        settings: of the check and the aggregator.
        watch: where evidence is kept.
        probes: what measures beside.
        ids: of the rows, `[B]`, where they have some.
    """
    batch = _fitting(Batch.in_training(*keras.utils.unpack_x_y_sample_weight(data)), watch)
    x, y, sample_weight = batch.x, batch.y, batch.sample_weight
    run, loss, gradients = run_and_differentiate(
        model, batch, of="own", observer=_observer(settings, probes), losses=bool(probes)
    )
    _keras.track_loss(model, loss, tf.shape(leaves(x)[0])[0])
    if not watch.off:
        _check(run, loss, gradients, settings, watch)
    # Of a schedule, the next step has another rate.
    rate = tf.convert_to_tensor(model.optimizer.learning_rate) if probes else None
    applied = _aggregate(run, gradients, settings, watch)
    model.optimizer.apply_gradients(list(zip(applied, model.trainable_weights, strict=True)))
    for probe in probes:
        probe.measure(run, ids, rate)
    if not tf.executing_eagerly():
        _keras.forget_custom_gradients(tf.compat.v1.get_default_graph())
    return model.compute_metrics(x, y, run.y_pred, sample_weight=sample_weight)


def _observer(settings: PerSample, probes: Sequence[Probe]) -> Callable[[Run], Observer] | None:
    """Who looks on in the step's own backward pass: for an aggregator or, unnoticed, for probes."""
    if settings.aggregator:
        observer = get_engine(settings.engine).observer
        return None if observer is None else observer.of
    found = [probe.engine.observer for probe in probes if probe.engine.observer is not None]
    return found[0].aside if found else None


def _fitting(batch: Batch, watch: Watch) -> Batch:
    """The batch, which stops the step if its leaves differ in their numbers of samples.

    Raises:
        DataError: by what is known while tracing. What the step shows is raised by the host.
    """
    sizes = batch.sizes()
    differ = tf.reduce_any(sizes != sizes[0])
    watch.refuse(_keras.replica_id(), differ, batch.different_sizes, sizes)
    return batch.after([tf.debugging.Assert(~differ, ["different numbers of samples:", sizes])])


def _check(run: Run, loss: tf.Tensor, gradients: list, settings: PerSample, watch: Watch) -> None:
    replica = _keras.replica_id()
    tolerance = Tolerance.of(run.coarsest_dtype, watch.check.rtol)
    engine = get_engine(settings.engine)
    again, stash = None, stash_for(run.batch, settings.memory_budget)
    if stash is not None:
        again = Again(run.batch, stash, engine, settings.memory_budget, _keras.under_xla())

    def measure() -> None:
        batch_gradient = _batch_gradient(run, gradients, settings)
        evidence = gather_evidence(
            run,
            engine,
            batch_gradient,
            settings.memory_budget,
            rtol=tolerance.rtol,
            samples=ORACLE_SAMPLES,
            turn=watch.turn(replica),
        )
        worst = badness(evidence, tolerance.rtol)
        if run.compute_dtype == "float16":  # loss scaling skips such a step, and so does the check
            overflowed = ~evidence.batch_finite & tf.reduce_all(tf.math.is_finite(loss))
            worst = tf.where(overflowed, tf.constant(-1.0, tf.float64), worst)
        watch.subject = subject_of(run, engine, tolerance)
        watch.keep(replica, evidence, worst, again)

    due = watch.due(replica) & tf.greater(run.size, 0)
    _keras.apart_if(due, measure)
    watch.step_done(replica)


def _batch_gradient(run: Run, gradients: list, settings: PerSample) -> list[tf.Tensor]:
    """What a check compares with: the step's own gradient, or in a graph the same once more.

    TensorFlow's optimizer of graphs regroups products that have a single reader. One more reader
    of a gradient would keep it from that, and the update would differ in its last bit from plain
    Keras'. Where an aggregator's gradient is applied there is no such update to be left alone.
    """
    if tf.executing_eagerly() or settings.aggregator is not None:
        return without_loss_scale(run, gradients)
    return run.batch_gradient()[1]


def _aggregate(run: Run, gradients: list, settings: PerSample, watch: Watch) -> list:
    aggregator = get_aggregator(settings.aggregator)
    if aggregator is None:
        return gradients
    engine = get_engine(settings.engine)
    unchecked = watch.off or watch.check.on_failure == "record"
    frozen = settings.batch_norm == "frozen"
    if engine.definition == "isolated" and unchecked and not frozen:
        _warn_of_batch_statistics(run, engine.name)
    known = tf.constant(True)

    def refuse(separation: Separation) -> Blocks:
        nonlocal known
        known = separation.known
        watch.refuse(_keras.replica_id(), separation.failed, lambda _: separation.refusal)
        return separation.blocks

    g = sample_gradients(
        run.contributions(), engine, settings.memory_budget, verify=watch.off, refuse=refuse
    )
    scale = run.model.optimizer.scale_loss(tf.ones(()))
    aggregated = [each * tf.cast(scale, each.dtype) for each in aggregator.aggregate(g)]
    found = dict(zip(map(id, run.variables), aggregated, strict=True))
    return [
        _where(known, found.get(id(variable)), gradient)
        for gradient, variable in zip(gradients, run.model.trainable_weights, strict=True)
    ]


def _where(known: tf.Tensor, aggregated: tf.Tensor | None, gradient: Any) -> Any:
    """The batch gradient in the place of an aggregated one that does not exist."""
    if gradient is None or aggregated is None:
        return gradient
    return tf.where(known, aggregated, tf.convert_to_tensor(gradient))


def _warn_of_batch_statistics(run: Run, engine: str) -> None:
    """Warns, once a trace, where the mean of sample gradients is not the batch gradient."""
    for layer in layers_with_batch_statistics(run.model):
        warnings.warn(
            f"{layer.path!r} normalizes with the statistics of the batch, so that the mean of the "
            "sample gradients, which the aggregator applies, is not the batch gradient. Use "
            "aggregator=None, or engine='jacobian' with check='off', or freeze the layer. "
            f"Received: aggregator='mean', engine={engine!r}.",
            EquivalenceWarning,
            stacklevel=2,
        )
