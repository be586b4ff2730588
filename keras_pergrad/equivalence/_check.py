"""The check of one batch, made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import (
    DEFAULT_MEMORY_BUDGET,
    Engine,
    expect_memory_budget,
    get_engine,
    sample_gradients,
    unique_paths,
    why_not_alone,
)
from keras_pergrad.equivalence._evidence import gather_evidence, pick
from keras_pergrad.equivalence._judge import Subject, judge
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tolerance import Tolerance, expect_rtol
from keras_pergrad.equivalence.causes import find_causes
from keras_pergrad.errors import DataError, EquivalenceError, PerGradError, SeparationError
from keras_pergrad.runs import (
    Batch,
    Run,
    prepare,
    run_and_differentiate,
    start,
    state_restored,
    without_loss_scale,
)

ORACLE_SAMPLES = 8


@tf.autograph.experimental.do_not_convert
def check_equivalence(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    engine: str | Engine = "vectorized",
    rtol: float | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> EquivalenceReport:
    """Is the gradient of the batch's scalar loss the mean of the gradients of its samples?

    Three tests: the mean of the samples' *own* gradients, plus the batch term, against the batch
    gradient; a few samples against the `loop` engine; and whether a sample notices what the others
    are. The model is left as it was: weights, statistics, seeds, metrics and `model.losses`.

    Args:
        model: any built and compiled Keras model.
        x, y, sample_weight: one batch, as `fit` takes it; every leaf `[B, ...]`.
        engine: the engine whose gradients are judged.
        rtol: the relative tolerance; by default that of the coarsest dtype computed in.
        memory_budget: bytes that one chunk of samples may need.

    Returns:
        The report. `print(report)` shows it as a table.

    Raises:
        PerGradError: the batch or the model cannot be used; the message says why.
    """
    if not tf.executing_eagerly():
        raise PerGradError(
            "A check returns numbers, and inside a tf.function there are none yet. Call it "
            "outside, or let `fit` check with `per_sample`. Received: a call while tracing."
        )
    expect_memory_budget(memory_budget)
    expect_rtol(rtol)
    batch, engine = Batch.of(x, y, sample_weight), get_engine(engine)
    if batch.size == 0:
        raise DataError("An empty batch has no gradient to compare. Received: a batch of size 0.")
    report = _check(model, batch, engine, rtol, memory_budget, double=False)
    decided_by = report.tolerance.dtype != "float64" and rtol is None
    if decided_by and _undecided(report) and _sandbox_is_true(model, batch, report):
        report = _break_tie(report, model, batch, engine, memory_budget)
    if not report.equivalent and not report.non_finite:
        contributions = _contributions(model, batch, engine, memory_budget)
        report = dataclasses.replace(report, contributions=contributions)
    return explained(report, model)


def explained(report: EquivalenceReport, model: keras.Model) -> EquivalenceReport:
    """A report that failed, with its causes; one of numbers that are not finite needs none."""
    if report.equivalent or report.non_finite:
        return report
    return dataclasses.replace(report, causes=find_causes(model, report))


def assert_equivalent(
    model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None, **options: Any
) -> None:
    """Raises where `check_equivalence`, with the same arguments, finds a difference.

    Raises:
        EquivalenceError: an `AssertionError` that carries the report.
    """
    report = check_equivalence(model, x, y, sample_weight, **options)
    if not report.equivalent:
        raise EquivalenceError(report)


def _check(
    model: keras.Model,
    batch: Batch,
    engine: Engine,
    rtol: float | None,
    memory_budget: int,
    *,
    double: bool,
) -> EquivalenceReport:
    if double:
        run = start(model, batch, of="own", double=True)
        _, batch_gradient = run.batch_gradient()
    else:
        run, batch_gradient = _as_in_training(model, batch, of="own")
    picks = pick(run.size, ORACLE_SAMPLES, turn=0)
    evidence = gather_evidence(run, engine, batch_gradient, memory_budget, picks)
    dtype = "float64" if double else run.compute_dtype
    return judge(evidence, None, subject_of(run, engine, Tolerance.of(dtype, rtol)))


def _as_in_training(
    model: keras.Model, batch: Batch, of: Literal["own", "contribution"]
) -> tuple[Run, list[tf.Tensor]]:
    """The run and the batch gradient of a real training step, and the model as it was."""
    prepare(model, batch)
    with state_restored(model):
        run, _, gradients = run_and_differentiate(model, batch, of=of)
    return run, without_loss_scale(run, gradients)


def subject_of(run: Run, engine: Engine, tolerance: Tolerance) -> Subject:
    """What a run's evidence is about."""
    return Subject(
        run.model,
        unique_paths(run.variables),
        [tuple(weight.shape) for weight in run.weights],
        engine.name,
        engine.definition,
        tolerance,
        run.unconnected,
        why_not_alone(run),
        None if run.batch.is_dense else "ragged and sparse rows are not changed",
        run.remarks,
        run.in_chunks,
    )


def _contributions(model: keras.Model, batch: Batch, engine: Engine, memory_budget: int) -> str:
    """Says whether contributions add up where the samples' own gradients do not."""
    run, batch_gradient = _as_in_training(model, batch, of="contribution")
    try:
        g = sample_gradients(run, engine, memory_budget)
    except SeparationError as refusal:
        return f"There are no contributions either. {str(refusal).partition(' Received:')[0]}"
    found = [mean + term for mean, term in zip(g.mean(), g.batch_term, strict=True)]
    missing = [f - b for f, b in zip(found, batch_gradient, strict=True)]
    error = float(tf.linalg.global_norm(missing) / tf.linalg.global_norm(batch_gradient))
    do = "do" if error <= 10 * Tolerance.of(run.compute_dtype).rtol else "do not"
    return (
        f"Contributions, with the batch's own denominators, {do} add up to the batch gradient "
        f"(relative error {error:.3g})."
    )


def _undecided(report: EquivalenceReport) -> bool:
    findings = (report.mean, report.oracle, report.coupling)
    failed_rows = any(not row.passed for row in report.rows)
    near = any(report.tolerance.near(finding.error) for finding in findings)
    return report.non_finite == 0 and (near or (failed_rows and report.mean.error < 1e-2))


def _sandbox_is_true(model: keras.Model, batch: Batch, report: EquivalenceReport) -> bool:
    """Whether the sandbox gives the batch gradient that training gets.

    The float64 run happens in the sandbox alone. It may only decide where the sandbox and a real
    training step agree, so that no fault of the sandbox acquits itself.
    """
    run, real = _as_in_training(model, batch, of="own")
    _, found = run.batch_gradient()
    missing = tf.linalg.global_norm([f - r for f, r in zip(found, real, strict=True)])
    return bool(missing <= report.tolerance.rtol * tf.linalg.global_norm(real))


def _break_tie(
    report: EquivalenceReport, model: keras.Model, batch: Batch, engine: Engine, budget: int
) -> EquivalenceReport:
    """Runs the check in float64, where rounding and a real difference are far apart."""
    try:
        with _keras.computing_in_float64(model):
            exact = _check(model, _doubled(batch), engine, None, budget, double=True)
    except (TypeError, ValueError, NotImplementedError, tf.errors.OpError) as error:
        first = str(error).strip().splitlines()[:1]
        text = f"the model does not run in float64 ({type(error).__name__}: {' '.join(first)})."
        return dataclasses.replace(report, tie_breaker=text)
    text = (
        f"run again in float64, the error is {exact.mean.error:.3g} "
        f"({'equivalent' if exact.equivalent else 'not equivalent'}); that decides."
    )
    kept = {
        name: dataclasses.replace(getattr(report, name), passed=getattr(exact, name).passed)
        for name in ("mean", "oracle", "coupling")
    }
    rows = [
        dataclasses.replace(row, passed=other.passed)
        for row, other in zip(report.rows, exact.rows, strict=True)
    ]
    return dataclasses.replace(
        report, equivalent=exact.equivalent, tie_breaker=text, rows=rows, **kept
    )


def _doubled(batch: Batch) -> Batch:
    return Batch(
        *(
            keras.tree.map_structure(
                lambda leaf: (
                    tf.cast(leaf, tf.float64)
                    if leaf is not None and leaf.dtype.is_floating
                    else leaf
                ),
                part,
            )
            for part in (batch.x, batch.y, batch.sample_weight)
        )
    )
