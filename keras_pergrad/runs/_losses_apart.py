"""Some of Keras' losses of a batch as the mean of what they are for the samples alone."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._leaves import map_leaves, take
from keras_pergrad.runs._replay import Replay


@contextlib.contextmanager
def called_one_by_one(
    losses: Collection[_keras.CompiledLoss], told: Replay, size: int
) -> Iterator[None]:
    """Inside, some losses are the mean of what they give for each sample by itself. Eagerly.

    Args:
        losses: which; of one that several outputs share, those calls alone that are meant.
        told: what replays the run; a loss that draws noise draws its row.
        size: the number of samples.
    """
    calls: dict[int, set[int]] = {}
    for each in losses:
        calls.setdefault(id(each.loss), set()).add(each.call)
    objects = {id(each.loss): each.loss for each in losses}
    with contextlib.ExitStack() as stack:
        for key, loss in objects.items():
            stack.enter_context(_called_by(loss, calls[key], _mean(told, size)))
        yield


def _mean(told: Replay, size: int) -> Callable[..., tf.Tensor]:
    def mean(call: Callable, *args: Any, **kwargs: Any) -> tf.Tensor:
        drawn = told.drawn
        rows = []
        for k in range(size):
            at = tf.constant(k)
            row = _row_of((args, kwargs), at)
            with told.turned_to(at, drawn), _keras.reductions_by(_as_alone):
                rows.append(tf.reduce_sum(call(*row[0], **row[1])))
        with told.turned_to(None, drawn):  # what comes next is counted from the end of this
            call(*args, **kwargs)
        return tf.add_n(rows) / tf.cast(size, rows[0].dtype)

    return mean


def _as_alone(reduction: _keras.Reduction) -> tf.Tensor:
    return reduction.by_keras()


def _row_of(arguments: Any, at: tf.Tensor) -> Any:
    """Sample `at` of what a loss is called on, with the masks and logits that Keras keeps."""
    return map_leaves(lambda leaf: _keras.cut(leaf, lambda each: take(each, at[None])), arguments)


@contextlib.contextmanager
def _called_by(loss: keras.Loss, which: set[int], mean: Callable[..., tf.Tensor]) -> Iterator[None]:
    """Inside, `loss(...)` is `mean(call, ...)` of its own call, in its calls number `which`.

    By a class of its own: Python looks a call up in the class, and others of it are not meant.
    """
    kind, count = type(loss), itertools.count()

    def called(self: keras.Loss, *args: Any, **kwargs: Any) -> tf.Tensor:
        call = functools.partial(kind.__call__, self)
        return mean(call, *args, **kwargs) if next(count) in which else call(*args, **kwargs)

    loss.__class__ = type(kind.__name__, (kind,), {"__call__": called})
    try:
        yield
    finally:
        loss.__class__ = kind
