"""A sample's row of a forward pass that was run eagerly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._attributes import attributes_kept, rows_of_attributes
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._leaves import map_leaves, take
from keras_pergrad.runs._replay import Replay

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


class Row(NamedTuple):
    """One sample: its part of the batch, its predictions, and what cuts its row of a tensor."""

    batch: Batch
    y_pred: Any
    of: Callable[[Any], Any]


@contextlib.contextmanager
def row_cut(
    run: Run, index: int, y_pred: Any, told: Replay, before: list[tf.Tensor]
) -> Iterator[Row]:
    """Inside, the model is as the forward pass of sample `index` alone would have left it.

    Args:
        run: the run.
        index: of the sample.
        y_pred: of the batch.
        told: what replays the run, at the end of the forward pass.
        before: the tensors that layers held before it.
    """
    at = tf.constant(index)

    def one(leaf: Any) -> Any:
        return take(leaf, at[None])

    with attributes_kept(run.model), told.turned_to(at, run.recording.forward_draws):
        rows_of_attributes(run.model, before, int(run.size), one)
        yield Row(run.batch.row(at), map_leaves(lambda leaf: _keras.cut(leaf, one), y_pred), one)
