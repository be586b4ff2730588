"""The check of one batch, made by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import (
    DEFAULT_MEMORY_BUDGET,
    Engine,
    expect_memory_budget,
    get_engine,
)
from keras_pergrad.equivalence._contributions import of_batch, of_samples
from keras_pergrad.equivalence._no_sample_alone import told_of_no_sample_alone
from keras_pergrad.equivalence._once import Request, as_in_training, checked
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._saved import save_reproduction
from keras_pergrad.equivalence._tie_breaker import with_tie_broken
from keras_pergrad.equivalence._tolerance import expect_rtol
from keras_pergrad.equivalence.causes import (
    Case,
    batch_statistics,
    rounded,
    told_apart,
    trains_by_itself,
    with_causes,
)
from keras_pergrad.errors import DataError, EquivalenceError, PerGradError
from keras_pergrad.runs import Batch, arrays_kept, build_if_unbuilt

NO_BATCH = (
    "Causes are looked for in a batch, and none is kept of ragged or sparse rows, or under XLA of "
    "rows of unknown shape: `check_equivalence` on such a batch names them all."
)
LARGE = 0.1  # one number on the other side of a kink rarely makes as much
_turns = itertools.count()  # each check by hand asks other samples, the same in every process


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
        model: any compiled Keras model; one without weights yet is built from the batch.
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
    batch = Batch.of(x, y, sample_weight)
    build_if_unbuilt(model, batch)
    if batch.size == 0:
        raise DataError("An empty batch has no gradient to compare. Received: a batch of size 0.")
    request = Request(model, batch, get_engine(engine), rtol, memory_budget, next(_turns))
    with arrays_kept(model), _keras.global_seed_made():
        return _checked(request)


def _checked(request: Request) -> EquivalenceReport:
    with _told_where_the_loss_goes(request.model), told_of_no_sample_alone(request):
        first, run, batch_gradient = checked(request, double=False)
    report = _decided(first, request)
    if not (report.equivalent or report.non_finite or report.contributions):
        text = of_batch(request, run.contributions(), batch_gradient)
        report = dataclasses.replace(report, contributions=text)
    return report


def explained(
    report: EquivalenceReport, model: keras.Model, request: Request | None
) -> EquivalenceReport:
    """A report that failed, with its causes: from its batch, or without it as far as they show."""
    if request is not None and report.unconnected:
        run, _ = as_in_training(request, of="own")
        reasons = told_apart(run, report.unconnected)
        report = dataclasses.replace(report, unconnected=reasons)
    if report.equivalent:
        notes = [] if request is None else [*rounded(report, request), *trains_by_itself(model)]
        return dataclasses.replace(report, notes=notes)
    if request is None:
        remarks = [*report.remarks, NO_BATCH]
        return dataclasses.replace(report, causes=batch_statistics(model, report), remarks=remarks)
    case = Case.of(request, report)
    report = with_causes(report, case)
    report = dataclasses.replace(report, contributions=of_samples(report, case))
    kept = int(request.batch.size)
    if kept < report.num_samples:
        text = (
            f"Of the {report.num_samples} samples {kept}, chosen by chance, were kept to look for "
            "causes in: XLA has no room for a batch of any size."
        )
        report = dataclasses.replace(report, remarks=[*report.remarks, text])
    reproduction = functools.partial(save_reproduction, request)
    return dataclasses.replace(report, reproduction=reproduction)


def _decided(report: EquivalenceReport, request: Request) -> EquivalenceReport:
    """The report with its causes; where they do not account for it, as float64 decides it.

    A difference that is large, and gone once its causes are undone, is none that rounding made, so
    that the whole batch need not be run again in float64. A tolerance that was asked for is not
    doubted.
    """
    if request.rtol is not None:
        return explained(report, request.model, request)
    if not report.equivalent and report.mean.error > LARGE:
        first = explained(report, request.model, request)
        if first.is_accounted_for:
            return first
    return explained(with_tie_broken(report, request), request.model, request)


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


@contextlib.contextmanager
def _told_where_the_loss_goes(model: keras.Model) -> Iterator[None]:
    """Says what to do about a model that Keras has no loss for."""
    try:
        yield
    except ValueError as error:
        if "No loss to compute" not in str(error):
            raise
        notes = list(trains_by_itself(model))
        own = "".join(f" {note.because}" for note in notes)
        raise PerGradError(
            "There is no loss to check: none is compiled, none is added, and `compute_loss` is "
            f"Keras' own. Move the loss into `compute_loss`, or compile one.{own} "
            f"Received: loss={model.loss!r}.",
            causes=tuple(note.kind for note in notes),
        ) from error
