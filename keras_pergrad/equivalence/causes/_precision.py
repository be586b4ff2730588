"""Rounding: a difference that vanishes in float64, or is less than the dtype can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._loss_scaling import against_underflow
from keras_pergrad.equivalence._once import Request
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tie_breaker import checked_in_float64
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.equivalence.causes.instruments import Case

KIND = "precision"
_FINER = "Set the dtype to float64, or rescale the loss, where that matters."


def precision(case: Case) -> Iterator[Cause]:
    """One cause where nothing but rounding is wrong."""
    report = case.report
    usual, seen = Tolerance.of(report.tolerance.dtype), _seen(case)
    if report.tolerance.rtol < usual.rtol and seen <= usual.rtol:
        yield Cause(
            KIND,
            usual.dtype,
            f"The difference of {seen:.2g} is what rounding makes in {usual.dtype}, where up to "
            f"{usual.rtol:.0e} is expected; {report.tolerance.rtol:.0e} was asked for.",
            "Ask for no less than that, or set the dtype to float64.",
            case.difference.leave_nothing(),
        )
    elif usual.dtype != "float64" and case.difference.is_left():
        yield from _vanishing(case, usual, seen)


def rounded(report: EquivalenceReport, request: Request) -> Iterator[Cause]:
    """A note on a check that passed although what was computed is not what was meant.

    In float64 the two gradients agree; in the model's own dtype they differ by more than rounding
    does, or are nothing but zeros.
    """
    usual = Tolerance.of(report.tolerance.dtype)
    lost = usual.dtype == "float16" and not any(row.batch_norm for row in report.rows)
    if lost and any(row.batch_norm for row in checked_in_float64(request).rows):
        because = (
            f"All gradients are zero in {usual.dtype}, and are not in float64: they underflow."
        )
        yield Cause(KIND, usual.dtype, because, against_underflow(request.model))
    elif report.tie_breaker is not None and report.mean.error > usual.rtol:
        because = (
            f"In {usual.dtype} the two differ by {report.mean.error:.2g}, more than the "
            f"{usual.rtol:.0e} that is usual; in float64 they agree. Numbers underflow, cancel "
            "out, or are rounded to the other side of a kink."
        )
        half = usual.dtype == "float16"
        yield Cause(
            KIND, usual.dtype, because, against_underflow(request.model) if half else _FINER
        )


def _seen(case: Case) -> float:
    findings = case.report.mean, case.report.oracle, case.report.coupling
    return max(finding.error for finding in findings)


def _vanishing(case: Case, usual: Tolerance, seen: float) -> Iterator[Cause]:
    exact = checked_in_float64(dataclasses.replace(case.request, rtol=None))
    if not exact.equivalent:
        return
    because = (
        f"The difference of {seen:.2g} vanishes in float64 ({exact.mean.error:.2g}); {usual.dtype} "
        f"would explain {usual.rtol:.0e}."
    )
    remedy = _FINER
    if usual.dtype == "float16":
        because += f" {_underflow(case)}"
        remedy = against_underflow(case.model)
    yield Cause(KIND, usual.dtype, because, remedy, case.difference.leave_nothing())


def _underflow(case: Case) -> str:
    largest = max(float(abs(g).numpy().max(initial=0.0)) for g in case.batch)
    return (
        "Gradients underflow: numbers below 6e-08 are zero, those below 6e-05 coarse, and the "
        f"largest entry of the batch gradient is {largest:.2g}."
    )
