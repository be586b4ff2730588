"""Where rounding may have made the verdict, the check is run again in float64, which decides."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.equivalence._once import Request, as_in_training, check_once
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.runs import Run, coarsest, dtypes_of


def with_tie_broken(report: EquivalenceReport, request: Request) -> EquivalenceReport:
    """The report itself, or as float64 decides it where float32 and coarser cannot.

    Where an operation computes in a coarser dtype than its layer, float64 would not reach it: then
    the tolerance is that of the operation.
    """
    if not report.is_near:
        return report
    run, gradient = as_in_training(request, of="own")
    hidden = coarsest({report.tolerance.dtype, *_traced_dtypes(run)})
    if hidden != report.tolerance.dtype:
        return check_once(dataclasses.replace(request, dtype=hidden), double=False)
    if report.tolerance.dtype != "float64" and _sandbox_is_true(report, run, gradient):
        return _run_in_float64(report, request)
    return report


def tried_again(report: EquivalenceReport, request: Request) -> EquivalenceReport:
    """A report of a training step that failed, or as float64 decides it for the same batch.

    At the weights after the step's update. What is wrong with a model, a loss or an engine is wrong
    there, too; a number that float32 rounded to the other side of a kink is not.
    """
    decided = with_tie_broken(report, request)
    return dataclasses.replace(decided, step=report.step, engine=report.engine)


def _traced_dtypes(run: Run) -> set[str]:
    """What the operations of a run compute in; nothing where it cannot be traced."""
    try:
        traced = run.traced_at(int(run.size))
        return dtypes_of(traced.operations, traced.weights, traced.loss)
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return set()


def _sandbox_is_true(report: EquivalenceReport, run: Run, real: list[tf.Tensor]) -> bool:
    """Whether the sandbox gives the batch gradient that training gets.

    The float64 run happens in the sandbox alone. It may only decide where the sandbox and a real
    training step agree, so that no fault of the sandbox acquits itself.
    """
    _, found = run.batch_gradient()
    missing = tf.linalg.global_norm([f - r for f, r in zip(found, real, strict=True)])
    return bool(missing <= report.tolerance.rtol * tf.linalg.global_norm(real))


def _run_in_float64(report: EquivalenceReport, request: Request) -> EquivalenceReport:
    """The report as a check in float64 decides it, or with why there is none."""
    try:
        return _decided_by(checked_in_float64(request), report)
    except (TypeError, ValueError, NotImplementedError, tf.errors.OpError) as error:
        first = str(error).strip().splitlines()[:1]
        text = f"the model does not run in float64 ({type(error).__name__}: {' '.join(first)})."
        return dataclasses.replace(report, tie_breaker=text)


def checked_in_float64(request: Request) -> EquivalenceReport:
    """The same check in float64, where rounding and a real difference are far apart."""
    with _keras.computing_in_float64(request.model):
        return check_once(dataclasses.replace(request, batch=request.batch.doubled()), double=True)


def _decided_by(exact: EquivalenceReport, report: EquivalenceReport) -> EquivalenceReport:
    """The report with its own numbers, and what the exact one says of them."""
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
