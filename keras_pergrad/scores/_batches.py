"""Data in batches that are the same each time, with the ids of their rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.errors import DataError
from keras_pergrad.rows import expect_in_order, is_packed, unpacked
from keras_pergrad.runs import Batch, leaves

BATCH_SIZE = 128


@dataclass(frozen=True)
class Batches:
    """Batches of data.

    Attributes:
        parts: begins anew and gives what `fit` would see of each batch.
        rows: how many there are in all; None where that is not known before the end.
    """

    parts: Callable[[], Iterator[Any]]
    rows: int | None

    def __iter__(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """The batches with the ids of their rows, `[B]`: given ones, or 0 … N - 1."""
        start = 0
        for part in self.parts():
            part, ids = unpacked(part)
            batch = Batch.of(*keras.utils.unpack_x_y_sample_weight(part))
            size = int(batch.size)
            if size:
                yield batch, np.arange(start, start + size) if ids is None else np.asarray(ids)
            start += size


def batches_of(x: Any, y: Any, sample_weight: Any, batch_size: int | None) -> Batches:
    """The batches of whatever `fit` takes, in its own order.

    Raises:
        DataError: data that have no fixed order or no end, or settings that they cannot have.
    """
    if is_packed(x):
        x, y, sample_weight = x["x"], x["y"], x.get("sample_weight")
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
        _expect_alone(x, y, sample_weight, batch_size)
        return _of_dataset(x) if isinstance(x, tf.data.Dataset) else _of_py_dataset(x)
    if hasattr(x, "__next__") or callable(x):
        raise DataError(
            "Data are arrays, a tf.data.Dataset of batches, or a keras.utils.PyDataset: what a "
            "generator gave cannot be given again. "
            f"Received: data of type {type(x).__name__}."
        )
    return _of_arrays((x, y, sample_weight), BATCH_SIZE if batch_size is None else batch_size)


def _of_arrays(data: tuple, batch_size: int) -> Batches:
    plain = [leaf for leaf in leaves(data) if not np.ndim(leaf)]
    if plain:
        raise DataError(
            "Data are arrays, or dicts and lists of arrays. Give `np.asarray(x)` for a list of "
            f"rows. Received: a leaf of type {type(plain[0]).__name__}."
        )
    sizes = {np.shape(leaf)[0] for leaf in leaves(data)}
    if len(sizes) != 1 or not leaves(data[0]):
        raise DataError(f"All arrays need as many rows. Received: numbers of rows {sorted(sizes)}.")
    rows = sizes.pop()

    def parts() -> Iterator[Any]:
        for start in range(0, rows, batch_size):
            cut = functools.partial(_cut, rows=slice(start, start + batch_size))
            yield tuple(keras.tree.map_structure(cut, part) for part in data)

    return Batches(parts, rows)


def _cut(leaf: Any, rows: slice) -> Any:
    return None if leaf is None else leaf[rows]


def _of_dataset(data: tf.data.Dataset) -> Batches:
    expect_in_order(data)
    _expect_an_end(int(data.cardinality()) == tf.data.INFINITE_CARDINALITY, data)
    return Batches(lambda: iter(data), None)


def _of_py_dataset(data: keras.utils.PyDataset) -> Batches:
    _expect_an_end(data.num_batches is None, data)
    return Batches(lambda: (data[k] for k in range(int(data.num_batches))), None)


def _expect_alone(x: Any, y: Any, sample_weight: Any, batch_size: int | None) -> None:
    if any(each is not None for each in (y, sample_weight, batch_size)):
        raise DataError(
            "A dataset brings its own targets, weights and batches. Received: `y`, `sample_weight` "
            f"or `batch_size` beside a {type(x).__name__}."
        )


def _expect_an_end(endless: bool, data: Any) -> None:
    if endless:
        raise DataError(
            "The data have no end, so that not every row could have a score. Give them without "
            f"`repeat()`. Received: an endless {type(data).__name__}."
        )
