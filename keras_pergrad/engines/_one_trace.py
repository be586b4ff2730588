"""Samples run alone, one after the other, by one trace: what `loop` does, where there are many."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._loop import Loop, one_by_one
from keras_pergrad.engines._sums import RTOL, double
from keras_pergrad.engines._trace import expect_no_python, expect_no_side_effects, refusing
from keras_pergrad.errors import PerGradError
from keras_pergrad.runs import Run, leaves

FEW = 3  # by hand, as many take no longer than a trace


class Alone(NamedTuple):
    """Samples that were run alone.

    Attributes:
        losses: `[b]`.
        gradients: `[b, *weight.shape]`.
        predictions: of each sample, its leaves of floating-point numbers, with one row; None where
            they were run by hand.
    """

    losses: tf.Tensor
    gradients: list[tf.Tensor]
    predictions: list[list[tf.Tensor]] | None = None


def in_turn(run: Run, indices: tf.Tensor) -> Alone:
    """As `one_by_one`.

    Many samples are run by one trace, if that gives what the first of them gives by hand: Python
    code that is to run anew each time does not. Else all of them are run by hand.
    """
    if not tf.executing_eagerly() or indices.shape[0] <= FEW:
        return Alone(*one_by_one(run, indices))
    by_hand = one_by_one(run, indices[:1])
    found = _by_one_trace(run, indices)
    if found is not None and _alike(run, by_hand[1], [each[:1] for each in found.gradients]):
        return found
    losses, gradients = one_by_one(run, indices[1:])
    pairs = zip(by_hand[1], gradients, strict=True)
    return Alone(tf.concat([by_hand[0], losses], 0), [tf.concat(pair, 0) for pair in pairs])


def _by_one_trace(run: Run, indices: tf.Tensor) -> Alone | None:
    """None where a sample's run cannot be traced, or does more than to compute."""
    traced = _keras.compiled(lambda index: _sample(run, index))
    try:
        with refusing(Loop.name), _keras.run_as_traced():
            function = traced.get_concrete_function(tf.TensorSpec([], indices.dtype))
            expect_no_side_effects(function.graph)
            expect_no_python(function.graph, Loop.name)
            results = [function(index) for index in indices]
    except PerGradError:
        return None
    _keras.emptied(function.graph)
    losses, gradients, predictions = zip(*results, strict=True)
    stacked = [tf.stack(each) for each in zip(*gradients, strict=True)]
    return Alone(tf.stack(losses), stacked, list(predictions))


def _sample(run: Run, index: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
    predictions: list[tf.Tensor] = []

    def note(y_pred: Any) -> None:
        predictions[:] = [leaf for leaf in leaves(y_pred) if leaf.dtype.is_floating]

    loss, gradients = run.sample(index, unroll=False, note=note)
    return loss, gradients, predictions


def _alike(run: Run, by_hand: list[tf.Tensor], traced: list[tf.Tensor]) -> bool:
    """Whether they are the same but for rounding; NaN is not."""
    missing = [double(a) - double(b) for a, b in zip(by_hand, traced, strict=True)]
    whole = tf.linalg.global_norm([double(each) for each in by_hand])
    return bool(tf.linalg.global_norm(missing) <= RTOL[run.compute_dtype] * whole)
