"""One pass of the check: a run of the batch, its evidence, and the judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import keras
import tensorflow as tf

from keras_pergrad.engines import Engine, unique_paths, why_not_alone
from keras_pergrad.equivalence._evidence import gather_evidence
from keras_pergrad.equivalence._judge import Subject, judge
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tolerance import Tolerance
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


@dataclass(frozen=True)
class Request:
    """What is to be checked, and how.

    Attributes:
        model, batch: what.
        engine: whose gradients are judged.
        rtol: the relative tolerance, None for that of the dtype computed in.
        memory_budget: bytes for one chunk of samples.
        turn: the number of the check, which samples are chosen by.
        dtype: the coarsest that the model computes in, None for what its layers and losses say.
        places: of the samples in the batch that they were taken from, None where that is `batch`.
    """

    model: keras.Model
    batch: Batch
    engine: Engine
    rtol: float | None
    memory_budget: int
    turn: int
    dtype: str | None = None
    places: tuple[int, ...] | None = None


def check_once(request: Request, *, double: bool) -> EquivalenceReport:
    """Judges one batch, by a real training step or, in double precision, by a sandbox alone."""
    return checked(request, double=double)[0]


def checked(request: Request, *, double: bool) -> tuple[EquivalenceReport, Run, list[tf.Tensor]]:
    """The same, and the run that was judged with its batch gradient."""
    if double:
        run = start(request.model, request.batch, of="own", double=True)
        _, batch_gradient = run.batch_gradient()
    else:
        run, batch_gradient = as_in_training(request, of="own")
    dtype = "float64" if double else request.dtype or run.coarsest_dtype
    tolerance = Tolerance.of(dtype, request.rtol)
    evidence = gather_evidence(
        run,
        request.engine,
        batch_gradient,
        request.memory_budget,
        rtol=tolerance.rtol,
        samples=ORACLE_SAMPLES,
        turn=request.turn,
    )
    report = judge(evidence, None, subject_of(run, request.engine, tolerance))
    return report, run, batch_gradient


def as_in_training(
    request: Request, of: Literal["own", "contribution"]
) -> tuple[Run, list[tf.Tensor]]:
    """The run and the batch gradient of a real training step, and the model as it was."""
    prepare(request.model, request.batch)
    with state_restored(request.model):
        run, _, gradients = run_and_differentiate(request.model, request.batch, of=of)
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
