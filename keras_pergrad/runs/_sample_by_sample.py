"""Layers that meet the samples of a batch one at a time, or as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs._replay import Replay

if TYPE_CHECKING:
    from keras_pergrad.runs._calls import Call
    from keras_pergrad.runs._run import Run


def layers_apart(run: Run, layers: Iterable[keras.Layer], told: Replay) -> Any:
    """Inside, `layers` are called sample by sample."""

    layers = list(layers)
    if not layers:  # also while a graph is traced, of an unknown number of samples
        return contextlib.nullcontext()
    size = int(run.size)

    def one(index: int, call: Any, args: tuple, kwargs: dict, begin: int) -> Any:
        args, kwargs = of_sample((args, kwargs), index, size)
        with told.turned_to(tf.constant(index), begin):
            return call(*args, **kwargs)

    return _keras.calls_through(layers, _SampleBySample(range(size), told, one))


def layers_held(run: Run, recorded: Sequence[Call], told: Replay, alone: int | None = None) -> Any:
    """Inside, each sample meets in some layers the others as they were when recorded.

    So a layer that mixes samples lets none of them notice a change of the others, and what it makes
    of each one is told apart all the same.

    Args:
        run: the run.
        recorded: the layers' calls, in their order; of one that another makes, only that other.
        told: what replays the run.
        alone: the one sample that they are called on, for all.
    """
    size = int(run.size)
    samples = range(size) if alone is None else [alone]
    waiting = list(recorded)

    def one(index: int, call: Any, args: tuple, kwargs: dict, begin: int) -> Any:
        if index == samples[0]:
            waiting.append(waiting.pop(0))
        args, kwargs = keras.tree.map_structure(
            lambda new, old: _with_row(new, old, index, size),
            (args, kwargs),
            waiting[-1].arguments,
        )
        with told.turned_to(None, begin):
            return of_sample(call(*args, **kwargs), index, size)

    layers = {id(call.layer): call.layer for call in recorded}
    return _keras.calls_through(layers.values(), _SampleBySample(samples, told, one))


class _SampleBySample:
    """Answers the calls of layers sample by sample; calls that those make are made as they are.

    Args:
        samples: their numbers.
        told: what replays the run.
        one: what a layer gives back for one sample, from its number, the layer's own call with its
            arguments, and the number of the first draw.
    """

    def __init__(self, samples: Sequence[int], told: Replay, one: Callable):
        self._samples, self._told, self._one = samples, told, one
        self._inside = False

    def __call__(self, layer: keras.Layer, call: Any, args: tuple, kwargs: dict) -> Any:
        if self._inside:
            return call(*args, **kwargs)
        self._inside, begin, rows = True, self._told.drawn, []
        for index in self._samples:
            with _keras.sandbox().forgetting():
                rows.append(self._one(index, call, args, kwargs, begin))
        self._inside = False
        return keras.tree.map_structure(lambda *each: _joined(layer, each), *rows)


def _with_row(new: Any, old: Any, index: int, size: int) -> Any:
    """What was recorded, with one sample's rows as they are now, in the batch or by themselves."""
    if not bears_samples(old, size):
        return new
    begin, end = (k * (old.shape[0] // size) for k in (index, index + 1))
    rows = new[begin:end] if new.shape == old.shape else new
    return tf.concat([old[:begin], rows, old[end:]], axis=0)


def of_sample(structure: Any, index: int, size: int) -> Any:
    """What one sample has of a layer's arguments: its row, or its rows if it has several."""
    return keras.tree.map_structure(
        lambda leaf: (
            _keras.cut(leaf, lambda part: _rows(part, index, size))
            if bears_samples(leaf, size)
            else leaf
        ),
        structure,
    )


def bears_samples(leaf: Any, size: int) -> bool:
    """Whether the leading axis has one entry a sample, or several."""
    return isinstance(leaf, tf.Tensor) and bool(leaf.shape.rank) and leaf.shape[0] % size == 0


def _rows(leaf: tf.Tensor, index: int, size: int) -> tf.Tensor:
    each = leaf.shape[0] // size
    return leaf[index * each : (index + 1) * each]


def _joined(layer: keras.Layer, rows: tuple) -> Any:
    if not isinstance(rows[0], tf.Tensor):
        return rows[0]
    if not rows[0].shape.rank:
        raise UnsupportedError(
            "A layer gives back a number that belongs to no sample. "
            f"Received: {layer.path!r} with an output of shape ()."
        )
    return tf.concat(rows, axis=0)
