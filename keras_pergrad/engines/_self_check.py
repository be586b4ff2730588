"""The first time that a model is read off its one pass, the factors are held against two others."""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._alone import why_not_alone
from keras_pergrad.engines._loop import one_by_one
from keras_pergrad.engines._plan import Plan
from keras_pergrad.engines._sums import RTOL
from keras_pergrad.errors import PerGradWarning, UnsupportedError
from keras_pergrad.gradients import rows_of
from keras_pergrad.runs import Run, start

_passed: weakref.WeakKeyDictionary[Any, set] = weakref.WeakKeyDictionary()


def check(plan: Plan) -> None:
    """Takes the factors of a weight out of a plan, with a warning, where they are wrong.

    The sum over samples has to be the gradient that the tape gave: else a rule is wrong. A few
    samples' gradients have to be those of the samples run alone: else, with the sum right, samples
    interact, or were taken for each other. Once for each model, loss and kind of batch; eagerly
    alone, since a graph has no numbers yet (in `fit` the equivalence check compares with `loop`).
    """
    passed, key = _passed.setdefault(plan.run.model, set()), _key(plan.run)
    if key in passed:
        return
    wrong = _judged(plan, _wrong_sums)
    for k in sorted(wrong):
        path = plan.run.variables[k].path
        plan.give_up(k, "it did not agree with the tape")
        warnings.warn(
            f"The factored engine reads wrong sample gradients of {path!r} off "
            f"{', '.join(plan.places[k])}; they are computed by the vectorized engine instead. "
            f"Please report this model. Received: model={plan.run.model.name!r}.",
            PerGradWarning,
            stacklevel=6,
        )
    apart = _judged(plan, _wrong_samples)
    if apart:
        paths = ", ".join(repr(plan.run.variables[k].path) for k in sorted(apart))
        plan.note_interaction(f"as two samples run alone have other gradients of {paths}")
    if not wrong and not apart and _proves_something(plan):
        passed.add(key)


def _judged(plan: Plan, wrong_in: Callable[[Plan], set[int]]) -> set[int]:
    """What differs, also in double precision: there no number is rounded across a kink to be
    another, and none vanishes for being small."""
    wrong = wrong_in(plan)
    if not wrong or plan.run.compute_dtype == "float64":
        return wrong
    run = plan.run
    try:
        with _keras.computing_in_float64(run.model):
            batch = run.batch.doubled()
            again = Plan(start(run.model, batch, of=run.of, training=run.training, double=True))
            again.run_once()
            return wrong & wrong_in(again)
    except (TypeError, ValueError, NotImplementedError, tf.errors.OpError):
        return wrong


def _proves_something(plan: Plan) -> bool:
    """Whether another batch could not show more: several samples, gradients that are numbers."""
    norm = float(tf.linalg.global_norm([tf.cast(each, tf.float64) for each in plan.totals]))
    return plan.run.size > 1 and 0 < norm < float("inf")


def _wrong_sums(plan: Plan) -> set[int]:
    sums = {k: factor.weighted_sum(None) for k, factor in plan.factors.items()}
    expected = plan.expected().sums()
    return _apart(plan, sums, {k: expected[k] for k in sums})


def _wrong_samples(plan: Plan) -> set[int]:
    """None where samples interact, or where only the user's code knows what a sample's part is."""
    run = plan.run
    if plan.interacts or run.is_opaque or why_not_alone(run) is not None:
        return set()
    picks = tf.unique(tf.constant([0, int(run.size) - 1]))[0]
    variables = [run.variables[k] for k in plan.factors]
    try:
        _, alone = one_by_one(dataclasses.replace(run, variables=variables), picks)
    except UnsupportedError:  # no sample of it can be run alone
        return set()
    found = {k: rows_of(factor, picks).materialize() for k, factor in plan.factors.items()}
    return _apart(plan, found, dict(zip(plan.factors, alone, strict=True)))


def _apart(plan: Plan, found: dict, expected: dict) -> set[int]:
    """Where two of a weight's gradients differ by more than rounding, relative to all weights."""
    scale = tf.linalg.global_norm([tf.cast(each, tf.float64) for each in expected.values()])
    allowed = RTOL[plan.run.compute_dtype] * scale
    wrong = set()
    for k, value in found.items():
        missing = tf.cast(value, tf.float64) - tf.cast(expected[k], tf.float64)
        if bool(tf.norm(missing) > allowed):  # NaN is no proof: the data may have it
            wrong.add(k)
    return wrong


def _key(run: Run) -> tuple:
    kinds = tuple((tuple(leaf.shape[1:]), leaf.dtype.name) for leaf in run.batch.leaves)
    losses = tuple(map(id, _keras.loss_objects(run.model)))
    return run.of, run.training, kinds, losses, tuple(map(id, run.variables))
