"""Samples that meet in the model: a prediction depends on what the other samples are."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_pergrad.engines import Meeting, find_meetings
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, Mixing, place_of
from keras_pergrad.errors import PerGradError

KIND = "sample_interaction"
STATISTICS = (
    "It normalizes every sample with the mean and variance of the whole batch, so that a sample "
    "alone, normalized by itself, is another function."
)
NORMALIZE = (
    "Use GroupNormalization (`pg.replace_batch_norm(model)` gives a copy that does), freeze the "
    "layer, or read shares: `per_sample_gradients` with engine='factored'."
)
_APART = (
    "Compute it within each sample, along other axes than the first; or read shares: "
    "`per_sample_gradients` with engine='factored'."
)


def sample_interaction(case: Case) -> Iterator[Cause]:
    """One cause for every layer that mixes samples."""
    if not case.mixing:
        return
    meetings = _meetings(case)
    for mixing in case.mixing:
        layer = mixing.layer
        normalizes = has_batch_statistics(layer)
        because = [STATISTICS] if normalizes else []
        because += [_behaviour(mixing), _seen(layer, meetings)]
        where = place_of(layer)
        explains = case.difference.undo(layers=(layer,))
        remedy = NORMALIZE if normalizes else _APART
        yield Cause(KIND, where, " ".join(because), remedy, explains)


def has_batch_statistics(layer: keras.Layer) -> bool:
    """Whether it is a BatchNormalization that is not frozen."""
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _behaviour(mixing: Mixing) -> str:
    return (
        "Its output for a sample moves when other samples change, by up to "
        f"{mixing.strength:.2g} of the largest output."
    )


def _meetings(case: Case) -> list[Meeting] | None:
    """Where the trace sees samples meet; None if the model cannot be traced so."""
    sizes = {
        size
        for call in case.calls.walk()
        for leaf in keras.tree.flatten(call.outputs)
        if isinstance(leaf, tf.Tensor)
        for size in leaf.shape[1:]
        if size
    }
    try:
        return find_meetings(case.run, sizes)
    except (PerGradError, ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return None


def _seen(layer: keras.Layer, meetings: list[Meeting] | None) -> str:
    """What a trace of the model says to what was seen by changing samples."""
    if meetings is None:
        return "The model cannot be traced with another number of samples to confirm that."
    here = [each.operation for each in meetings if each.layer is layer]
    if here:
        return f"A trace of the model agrees: they meet in {here[0].type} {here[0].name!r}."
    return "A trace of the model does not see samples meet there, so look at it yourself."
