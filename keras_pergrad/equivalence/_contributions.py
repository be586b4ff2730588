"""Whether contributions add up where the samples' own gradients do not."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.engines import sample_gradients
from keras_pergrad.equivalence._once import Request
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.equivalence.causes import Case, seen_to_meet
from keras_pergrad.errors import SeparationError
from keras_pergrad.runs import Run

_WITHIN = 10  # times the tolerance


def of_samples(report: EquivalenceReport, case: Case) -> str | None:
    """That they do, where Keras' reduction is all that weighs the samples; else what was said.

    With its weight in the batch's loss, a sample's own gradient is its contribution, if no other
    sample has a part in it: then those add up, and nothing more has to be run. An engine is asked
    itself if its own gradients are wrong, if samples meet anywhere, or if the loss is reduced where
    Keras cannot be asked how.
    """
    if report.remainder is None or not (report.oracle.passed and report.coupling.passed):
        return report.contributions
    try:
        error = None if seen_to_meet(case) else case.error_of_contributions
    except Exception:  # any model, loss or layer may be behind it
        return report.contributions
    if error is None or error > _WITHIN * case.rtol:
        return report.contributions
    return _told(error, here=f" of {case.size} samples")


def of_batch(request: Request, run: Run, batch_gradient: list[tf.Tensor]) -> str:
    """Whether an engine's do."""
    try:
        g = sample_gradients(run, request.engine, request.memory_budget)
    except SeparationError as refusal:
        return f"There are no contributions either. {str(refusal).partition(' Received:')[0]}"
    found = [mean + term for mean, term in zip(g.mean(), g.batch_term, strict=True)]
    missing = [f - b for f, b in zip(found, batch_gradient, strict=True)]
    error = float(tf.linalg.global_norm(missing) / tf.linalg.global_norm(batch_gradient))
    return _told(error, adds_up=error <= _WITHIN * Tolerance.of(run.compute_dtype).rtol)


def _told(error: float, *, adds_up: bool = True, here: str = "") -> str:
    do = "do" if adds_up else "do not"
    return (
        f"Contributions, with the batch's own denominators, {do} add up to the batch gradient"
        f"{here} (relative error {error:.3g})."
    )
