"""Rounding: a difference that vanishes in float64, or is less than the dtype can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._tie_breaker import checked_in_float64
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.equivalence.causes._case import Case, norm

KIND = "precision"


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
            case.leave_nothing(),
        )
    elif usual.dtype != "float64" and case.differs and case.remainder > 0.02:
        yield from _vanishing(case, usual, seen)


def _seen(case: Case) -> float:
    findings = case.report.mean, case.report.oracle, case.report.coupling
    return max(finding.error for finding in findings)


def _vanishing(case: Case, usual: Tolerance, seen: float) -> Iterator[Cause]:
    exact = checked_in_float64(dataclasses.replace(case.request, rtol=None))
    if not exact.equivalent:
        return
    largest = max(float(abs(g).numpy().max(initial=0.0)) for g in case.batch)
    flow = "underflows" if norm(case.batch) <= norm(case.mean) else "overflows"
    scaled = "16" in usual.dtype
    yield Cause(
        KIND,
        usual.dtype,
        f"The difference of {seen:.2g} vanishes in float64 ({exact.mean.error:.2g}); {usual.dtype} "
        f"would explain {usual.rtol:.0e}."
        + (f" The gradient {flow}: its largest entry is {largest:.2g}." if scaled else ""),
        "Compile with a keras.optimizers.LossScaleOptimizer."
        if scaled
        else "Set the dtype to float64, or rescale the loss.",
        case.leave_nothing(),
    )
