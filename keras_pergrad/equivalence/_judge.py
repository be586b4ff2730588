"""From evidence to a report. Runs on the host, on numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_pergrad.equivalence import _ratios
from keras_pergrad.equivalence._evidence import Evidence
from keras_pergrad.equivalence._loss_scaling import against_overflow
from keras_pergrad.equivalence._report import EquivalenceReport, Finding, VariableRow
from keras_pergrad.equivalence._tolerance import Tolerance


@dataclass(frozen=True)
class Subject:
    """What was checked.

    Attributes:
        model: the model.
        paths, shapes: of its variables.
        engine, definition: the engine's name, and which gradient of a sample it computes.
        tolerance: of the comparison.
        unconnected: path → why no gradient reaches the variable.
        no_oracle: why no sample can be run alone, or None.
        no_probe: why no sample can be changed, or None.
        remarks: what else tracing found.
        in_chunks: from the number of samples to how they were cut into chunks, in words, or None.
    """

    model: keras.Model
    paths: list[str]
    shapes: list[tuple[int, ...]]
    engine: str
    definition: str
    tolerance: Tolerance
    unconnected: dict[str, str]
    no_oracle: str | None
    no_probe: str | None
    remarks: list[str]
    in_chunks: Callable[[int], str | None] | None


def judge(evidence: Evidence, step: int | None, subject: Subject) -> EquivalenceReport:
    """Weighs the evidence; causes are looked for by the caller."""
    rtol = subject.tolerance.rtol
    table = np.asarray(evidence.table)
    passed = _ratios.by_variable(evidence.table, rtol).numpy() <= 1
    mean = _judge_mean(evidence, passed, rtol)
    oracle = _judge_oracle(evidence, subject, rtol)
    coupling = _judge_coupling(evidence, subject, rtol, mean.passed and oracle.passed)
    remarks = subject.remarks + _chunks(evidence, subject) + _where_not_finite(evidence, subject)
    remarks += _coarse_operation(subject, max(mean.error, oracle.error, coupling.error))
    count = int(evidence.non_finite)
    return EquivalenceReport(
        equivalent=mean.passed and oracle.passed and coupling.passed and count == 0,
        mean=mean,
        oracle=oracle,
        coupling=coupling,
        rows=[_row(subject, k, table[k], bool(passed[k])) for k in range(len(table))],
        max_relative_error=_ratio(*np.sqrt(table.sum(axis=0)[[2, 0]])),
        tolerance=subject.tolerance,
        engine=subject.engine,
        num_samples=int(evidence.size),
        non_finite=count,
        non_finite_indices=[int(k) for k in np.asarray(evidence.non_finite_indices)[:count]],
        step=step,
        unconnected=subject.unconnected,
        remarks=remarks,
    )


def _chunks(evidence: Evidence, subject: Subject) -> list[str]:
    """Says that the batch did not fit the memory budget at once."""
    said = subject.in_chunks and subject.in_chunks(int(evidence.size))
    return [f"A batch of sample gradients {said}."] if said else []


def _coarse_operation(subject: Subject, error: float) -> list[str]:
    """Says of a small error in double precision what is likely to have made it."""
    rtol = subject.tolerance.rtol
    if subject.tolerance.dtype != "float64" or not rtol < error <= Tolerance.of("float32").rtol:
        return []
    return [
        "An error of this size in float64 comes most likely from an operation that TensorFlow "
        "computes in float32 all the same, as it does bilinear resizing; then ask for rtol=1e-5."
    ]


def _where_not_finite(evidence: Evidence, subject: Subject) -> list[str]:
    """Names the first weight, in the model's order, whose sample gradients are not finite."""
    if not evidence.batch_finite and not evidence.non_finite:
        return [
            "The batch gradient is not finite although every sample's is: it overflows in "
            f"{subject.tolerance.dtype}. {against_overflow(subject.model)}"
        ]
    spread = np.asarray(evidence.table)[:, 4]
    wrong = np.flatnonzero(~np.isfinite(spread))
    if not len(wrong):
        return []
    return [
        f"The first weight with NaN or Inf in its sample gradients is {subject.paths[wrong[0]]!r}."
    ]


def _judge_mean(evidence: Evidence, passed: np.ndarray, rtol: float) -> Finding:
    error = float(_ratios.overall(evidence.table))
    wrong = int((~passed).sum())
    text = "mean of the sample gradients plus batch term, against the batch gradient"
    if wrong:
        text += f"; {wrong} of {len(passed)} variables differ"
    return Finding(error <= rtol and not wrong, error, rtol, _judged(error, text))


def _judge_oracle(evidence: Evidence, subject: Subject, rtol: float) -> Finding:
    error = float(_ratios.overall(evidence.oracle))
    passed = bool((_ratios.by_variable(evidence.oracle, rtol).numpy() <= 1).all())
    text = f"{_how_many(evidence)}, each run alone by the loop engine"
    if subject.no_oracle:
        text = f"not asked: {subject.no_oracle}"
    return Finding(
        error <= rtol and passed, error, rtol, _judged(error, text), not subject.no_oracle
    )


def _how_many(evidence: Evidence) -> str:
    if 1 < evidence.size == evidence.asked:
        return f"all {int(evidence.size)} samples"
    return "a few samples"


def _judge_coupling(evidence: Evidence, subject: Subject, rtol: float, right: bool) -> Finding:
    """Where all samples were run alone and are right, no gradient comes of what they notice."""
    model, loss, replay = (float(error) for error in _ratios.coupling(evidence.coupling))
    parts = []
    if model > rtol:
        parts.append("a prediction moves when other samples change")
    if loss > rtol:
        parts.append("the loss is not a sum over samples")
    if replay > rtol:
        parts.append("the step, run again, predicts something else")
    text = "; ".join(parts) or "no sample notices what the others are"
    reason = subject.no_probe or ("there is but one sample" if evidence.size == 1 else None)
    if reason:
        text = f"not asked: {reason}"
    error = float(np.max([model, loss, replay]))  # NaN if either is
    known = evidence.asked == evidence.size and bool(_ratios.tells(evidence.table))
    harmless = bool(right and known and np.max([model, loss]) > rtol >= replay)
    if harmless:
        text += "; but all samples, run alone, have these gradients"
    return Finding(error <= rtol or harmless, error, rtol, _judged(error, text), not reason)


def _judged(error: float, text: str) -> str:
    return "cannot be judged: a number is NaN" if np.isnan(error) else text


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else (0.0 if part == 0 else float("inf"))


def _row(subject: Subject, k: int, numbers: np.ndarray, passed: bool) -> VariableRow:
    batch, mean, difference = (float(np.sqrt(n)) for n in numbers[:3])
    cosine = float(numbers[3]) / (batch * mean) if batch * mean else float("nan")
    return VariableRow(
        subject.paths[k],
        subject.shapes[k],
        batch,
        mean,
        difference,
        _ratio(difference, batch),
        cosine,
        passed,
    )
