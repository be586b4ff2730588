"""Which layers look at a sample's place or at the batch's size, found by what they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad.errors import PerGradError
from keras_pergrad.runs import Call, Run, bears_samples, leaves, map_leaves, of_sample

ROWS = 13  # in how many samples, at most, layers are told apart


@dataclass(frozen=True)
class Placing:
    """A layer that gives a sample something else in a batch than alone.

    Attributes:
        layer: the layer.
        strength: how far the two are apart, over the largest output.
        by_place: whether its outputs change with the samples' order; None where that is not known.
    """

    layer: keras.Layer
    strength: float
    by_place: bool | None


def find_placing(
    run: Run,
    call: Call,
    limit: float,
    held: Iterable[keras.Layer] = (),
    alone: Sequence[list[tf.Tensor]] | None = None,
) -> list[Placing]:
    """Those layers, innermost first; a layer's own code after what it calls.

    A layer is one if what it gives back for a sample of what it was called on, all noise and state
    held, is not that sample's part of what it gave the batch.

    Args:
        run: the run.
        call: the call to look into.
        limit: the largest relative distance that rounding explains.
        held: layers that mix samples: each sample meets the others in them as they were.
        alone: the predictions of each sample run alone, where those are known.
    """
    held = list(held)
    floats, size = [leaf for leaf in leaves(run.y_pred) if leaf.dtype.is_floating], int(run.size)
    if held or not alone or len(alone[0]) != len(floats):
        everywhere = _departures(run, call, range(size), held)
    else:
        everywhere = {k: _distance(floats, own, k, size) for k, own in enumerate(alone)}
    if everywhere and max(everywhere.values()) <= limit:
        return []
    rows = sorted(everywhere, key=lambda k: -everywhere[k])[:ROWS] or range(size)[:ROWS]
    return list(_found(run, call, limit, held, rows).values())


def _found(
    run: Run, call: Call, limit: float, held: list[keras.Layer], rows: Sequence[int]
) -> dict[int, Placing]:
    if any(call.layer is layer for layer in held):
        return {}
    strength = _strength(run, call, rows, held)
    if strength is not None and strength <= limit:
        return {}
    found: dict[int, Placing] = {}
    for inner in call.inner:
        found = {**_found(run, inner, limit, held, rows), **found}
    if found and strength is not None:
        strength = _strength(run, call, rows, [*held, *(each.layer for each in found.values())])
    if strength is not None and strength > limit:
        by_place = None if held or found else _is_by_place(run, call, limit)
        found.setdefault(id(call.layer), Placing(call.layer, strength, by_place))
    return found


def _strength(run: Run, call: Call, rows: Sequence[int], held: list[keras.Layer]) -> float | None:
    """How far a call's outputs for some samples are from those alone; None where none has any."""
    return max(_departures(run, call, rows, held).values(), default=None)


def _departures(
    run: Run, call: Call, rows: Iterable[int], held: list[keras.Layer]
) -> dict[int, float]:
    """The same for each of the samples; empty where they cannot be called by themselves."""
    size = int(run.size)
    if size < 2 or not call.bears_samples(size):
        return {}
    try:
        return {k: _distance(call.outputs, call.alone(run, k, held), k, size) for k in rows}
    except (PerGradError, ValueError, TypeError, tf.errors.OpError):
        return {}


def _distance(batch: Any, alone: Any, index: int, size: int) -> float:
    """Between a sample's part of the batch's outputs and its own, over the largest number."""
    worst, parts = 0.0, of_sample(batch, index, size)
    for whole, part, own in zip(leaves(batch), leaves(parts), leaves(alone), strict=True):
        if bears_samples(whole, size) and whole.dtype.is_floating:
            if part.shape.num_elements() != own.shape.num_elements():
                return float("inf")
            worst = max(worst, _relative(part, tf.reshape(own, part.shape), whole))
    return worst


def _is_by_place(run: Run, call: Call, limit: float) -> bool | None:
    """Whether the outputs of samples in another order are not the outputs in that order."""
    if call.drawn[0] != call.drawn[1]:  # noise stays where it is
        return None
    size = int(run.size)

    def turned(leaf: Any) -> Any:
        if not bears_samples(leaf, size):
            return leaf
        return tf.roll(leaf, leaf.shape[0] // size, axis=0)

    after = call.again(run, map_leaves(turned, call.arguments))
    pairs = zip(leaves(map_leaves(turned, call.outputs)), leaves(after), strict=True)
    floats = [p for p in pairs if bears_samples(p[0], size) and p[0].dtype.is_floating]
    return any(_relative(old, new, old) > limit for old, new in floats)


def _relative(one: tf.Tensor, other: tf.Tensor, whole: tf.Tensor) -> float:
    change = tf.cast(one, tf.float64) - tf.cast(other, tf.float64)
    scale = tf.maximum(_largest(whole), _largest(other))
    return float(tf.math.divide_no_nan(_largest(change), scale))


def _largest(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_max(tf.abs(values)), tf.float64)
