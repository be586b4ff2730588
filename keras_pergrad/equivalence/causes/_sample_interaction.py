"""Samples that meet in the model: a prediction depends on what the other samples are."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from keras_pergrad import _keras
from keras_pergrad.engines import Meeting
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._only_traced import meetings_of
from keras_pergrad.equivalence.causes.instruments import Case, Mixing, place_of

KIND = "sample_interaction"
STATISTICS = (
    "It normalizes every sample with the mean and variance of the whole batch, so that a sample "
    "alone, normalized by itself, is another function."
)
_INSTEAD = (
    "Use GroupNormalization{}, freeze the layer, or read shares: `per_sample_gradients` with "
)
_COPY = " (`pg.replace_batch_norm(model)` gives a copy that does)"
_APART = (
    "Compute it within each sample, along other axes than the first; or read shares: "
    "`per_sample_gradients` with engine='factored'."
)


def sample_interaction(case: Case) -> Iterator[Cause]:
    """One cause for every layer that mixes samples, but for those with a cause of their own."""
    found = [each for each in case.mixing if id(each.layer) not in case.blamed_layers]
    meetings = meetings_of(case) if found else None
    for mixing in found:
        layer = mixing.layer
        normalizes = has_batch_statistics(layer)
        because = [STATISTICS] if normalizes else []
        because += [_behaviour(mixing), _seen(layer, meetings)]
        where = place_of(layer)
        explains = case.difference.undo(layers=(layer,))
        remedy = instead_of(layer, case.model) if normalizes else _APART
        yield Cause(KIND, where, " ".join(because), remedy, explains)


def instead_of(layer: keras.Layer, model: keras.Model) -> str:
    """What to use instead of a BatchNormalization, and what does it where anything can."""
    copy = _COPY if _can_be_exchanged(layer, model) else ""
    return f"{_INSTEAD.format(copy)}engine='factored'."


def _can_be_exchanged(layer: keras.Layer, model: keras.Layer) -> bool:
    """Whether Keras knows the layers around it, as `replace_batch_norm` needs."""
    if not isinstance(model, (keras.Sequential, _keras.Functional)):
        return False
    return any(each is layer or _can_be_exchanged(layer, each) for each in model.layers)


def has_batch_statistics(layer: keras.Layer) -> bool:
    """Whether it is a BatchNormalization that is not frozen."""
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _behaviour(mixing: Mixing) -> str:
    return (
        "Its output for a sample moves when other samples change, by up to "
        f"{mixing.strength:.2g} of the largest output."
    )


def _seen(layer: keras.Layer, meetings: list[Meeting] | None) -> str:
    """What a trace of the model says to what was seen by changing samples."""
    if meetings is None:
        return "The model cannot be traced with another number of samples to confirm that."
    here = [each for each in meetings if each.layer is layer]
    if here:
        return (
            f"A trace of the model agrees: they meet in {here[0].operation.type} {here[0].name!r}."
        )
    return "A trace of the model does not see samples meet there, so look at it yourself."
