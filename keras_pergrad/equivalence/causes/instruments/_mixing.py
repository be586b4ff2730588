"""Which layers mix samples, found by what they do."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad.equivalence._chance import halvings
from keras_pergrad.runs import Call, Run, bears_samples, leaves, map_leaves


@dataclass(frozen=True)
class Mixing:
    """A layer that mixes samples.

    Attributes:
        layer: the layer.
        strength: how far an output moves when other samples change, over the largest output.
    """

    layer: keras.Layer
    strength: float


def find_mixing(run: Run, call: Call, limit: float, unsteady: Collection[int] = ()) -> list[Mixing]:
    """The layers that mix samples, innermost first; a layer's own code after what it calls.

    A layer mixes if its outputs for some samples move when what it is called on changes for others,
    all noise and state held. One that calls layers which mix does so itself if it still does with
    each sample meeting the others in those as they were.

    Args:
        run: the run.
        call: the call to look into.
        limit: the largest relative movement that rounding explains.
        unsteady: calls, by ids, that cannot be repeated; nothing that holds one is judged.
    """
    if int(run.size) < 2:
        return []
    steady = not any(id(each) in unsteady for each in call.walk())
    judged = steady and call.bears_samples(int(run.size))
    moved = movement(run, call) if judged else None
    if moved is not None and moved <= limit:
        return []
    found: dict[int, Mixing] = {}
    for inner in call.inner:
        for each in find_mixing(run, inner, limit, unsteady):
            found.setdefault(id(each.layer), each)
    if found and judged:
        moved = movement(run, call, held=[each.layer for each in found.values()])
    if moved is not None and moved > limit:
        found.setdefault(id(call.layer), Mixing(call.layer, moved))
    return list(found.values())


def movement(run: Run, call: Call, held: Iterable[keras.Layer] = ()) -> float:
    """How far outputs move when other samples change, over the largest; the most of four tries."""
    size, held = int(run.size), list(held)
    before = call.again(run, call.arguments, held) if held else call.outputs
    worst = 0.0
    for half in halvings(size, 0):
        for which in (half, ~half):
            changed = map_leaves(
                functools.partial(_changed, which=which, size=size), call.arguments
            )
            after = call.again(run, changed, held)
            worst = max(worst, _moved(before, after, ~which, size))
    return worst


def _changed(leaf: Any, which: tf.Tensor, size: int) -> Any:
    """A leaf with the samples `which` replaced by their neighbours."""
    if not bears_samples(leaf, size):
        return leaf
    rows = tf.where(which, tf.roll(tf.range(size), 1, axis=0), tf.range(size))
    return _by_sample(leaf, size, lambda each: tf.gather(each, rows))


def _by_sample(leaf: tf.Tensor, size: int, change: Any) -> tf.Tensor:
    apart = tf.reshape(leaf, [size, leaf.shape[0] // size, *leaf.shape[1:]])
    return tf.reshape(change(apart), leaf.shape)


def _moved(before: Any, after: Any, which: tf.Tensor, size: int) -> float:
    """The largest change of the samples `which`, over the largest number."""
    worst = 0.0
    for old, new in zip(leaves(before), leaves(after), strict=True):
        if bears_samples(old, size) and old.dtype.is_floating:
            rows = tf.reshape(tf.cast([old, new], tf.float64), [2, size, -1])
            change = tf.reduce_max(tf.abs(tf.boolean_mask(rows[1] - rows[0], which)))
            largest = tf.reduce_max(tf.abs(rows))
            worst = max(worst, float(tf.math.divide_no_nan(change, largest)))
    return worst
