"""Weights that no gradient reaches, each with its reason. No error of the check."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import PrimeTrace
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, Way, way_to_loss, why_unread
from keras_pergrad.runs import CUT, UNREAD, Run

KIND = "unconnected"
_CONNECT = "If it is meant to train, connect it to the loss; else freeze it or leave it out."
_FLAT = "every derivative is exactly zero: it is behind something flat, or cancels out"
_REMEDIES = {
    "stopped": "If it is meant to train, take the `stop_gradient` away; else freeze it.",
    "whole": "Whole numbers have no derivative: use a soft form (softmax, a relaxation), or let "
    "the gradient pass by `x + stop_gradient(whole(x) - x)`.",
}


def unconnected(case: Case) -> Iterator[Cause]:
    """A note on each trainable weight without a gradient, and one on all that are frozen."""
    given = case.report.unconnected | case.run.unconnected
    given |= {path: _FLAT for path in _zero(case) if path not in given}
    for path, (reason, remedy) in _reasons(case.run, given).items():
        yield Cause(KIND, path, f"No gradient reaches it: {reason}.", remedy)
    frozen = [weight.path for weight in _keras.frozen_weights(case.model)]
    if frozen:
        shown = ", ".join(frozen[:3]) + (", …" if len(frozen) > 3 else "")
        because = f"Frozen, so that it gets no gradient: {shown} ({len(frozen)} in all)."
        yield Cause(KIND, frozen[0], because, "Nothing is wrong, if that is meant.")


def told_apart(run: Run, given: dict[str, str]) -> dict[str, str]:
    """Path → reason of weights that no gradient reaches, with what a trace knows of each."""
    return {path: reason for path, (reason, _) in _reasons(run, given).items()}


def _reasons(run: Run, given: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Path → reason and remedy, in the order of `given`."""
    reasons = {path: (reason, _CONNECT) for path, reason in given.items()}
    asked = [k for k, v in enumerate(run.variables) if given.get(v.path) in (CUT, UNREAD, _FLAT)]
    if not asked:
        return reasons
    try:
        traced = PrimeTrace(run).traced
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return reasons  # it runs on no other number of samples
    calls = functools.cache(run.calls)
    for k in asked:
        weight, way = run.variables[k], way_to_loss(traced, traced.weights[k])
        reason = _reason(way, given[weight.path])
        if way.kind == "unread" and given[weight.path] == UNREAD:
            reason = why_unread(run.model, weight, calls())
        reasons[weight.path] = reason, _REMEDIES.get(way.kind, _CONNECT)
    return reasons


def _reason(way: Way, known: str) -> str:
    """A reason in words; what is known already where the trace says nothing else."""
    end = "" if way.operation is None else f"{way.operation.type} {way.operation.name!r}"
    if way.branches is not None and known == UNREAD:
        return f"it is in a branch that is not taken, of {way.branches.type} {way.branches.name!r}"
    if way.kind == "dropped":
        return "it is unused: what is made of it does not reach the loss"
    if way.kind == "stopped":
        return f"every way to the loss is cut by stop_gradient, first in {end}"
    if way.kind == "whole":
        return f"on every way to the loss whole numbers are made of it, first in {end}"
    if way.kind == "flat":
        return f"on every way to the loss an operation has no derivative, first {end}"
    return known


def _zero(case: Case) -> list[str]:
    """The weights with a gradient of zeros, in the batch and for every sample."""
    own = case.own if case.alone else case.batch
    gradients = zip(case.run.variables, case.batch, own, strict=True)
    return [v.path for v, batch, each in gradients if not np.any(batch) and not np.any(each)]
