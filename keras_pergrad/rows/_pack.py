"""Ids that travel with the data: packed with `y`, and unpacked before anything else sees them.

A fourth part of a batch, one more input, or one more column of weights each break some way of
training; one more entry of `y` breaks none, as nothing looks into `y` before the loss does.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import DataError

_IDS, _Y = "keras_pergrad_ids", "y"
# What gives a row another number, or several: how it is called, and what comes of it.
_BEFORE = {
    "Shuffle": ("shuffled", "shuffle", "its rows have other numbers in each epoch"),
    "Repeat": ("repeated", "repeat", "each row would have a number for each time"),
}


def with_ids(
    x: Any, y: Any = None, sample_weight: Any = None, *, ids: Any = None, class_weight: Any = None
) -> Any:
    """The same data with an id for each row, so that a monitor can say which row it was.

    Works with a `PerGradModel` or an attached model: in `fit`, with `validation_split`, in
    `evaluate`, and in all of this package. The model, the loss and the metrics see plain data.

    Args:
        x: arrays as `fit` takes them, `[N, ...]` each, or a `tf.data.Dataset` of `(x, y)` or
            `(x, y, sample_weight)`. A dataset is counted through in its own order: give it before
            it is shuffled; batched or not.
        y, sample_weight: for arrays, as for `fit`.
        ids: `[N]`, whole numbers, each once; 0 … N - 1 by default. For a dataset, None.
        class_weight: class → weight, made into sample weights, as Keras refuses it for such data.

    Returns:
        A dict of `fit`'s arguments for arrays, `model.fit(**pg.with_ids(x, y))`; for a dataset, a
        dataset.

    Raises:
        DataError: ids that repeat, are no whole numbers or not one a row; data that have ids
            already; a dataset that is shuffled or repeated already.

    Example:
        >>> import numpy as np, keras_pergrad as pg
        >>> sorted(pg.with_ids(np.zeros((4, 3)), np.zeros((4, 1))))
        ['x', 'y']
    """
    _expect_no_ids(x, y)
    if isinstance(x, tf.data.Dataset):
        return _of_dataset(x, y, sample_weight, ids, class_weight)
    sizes = {len(leaf) for leaf in keras.tree.flatten((x, y, sample_weight)) if leaf is not None}
    if len(sizes) != 1:
        raise DataError(f"All arrays need as many rows. Received: numbers of rows {sorted(sizes)}.")
    ids = _checked(ids, sizes.pop())
    if class_weight is not None:
        sample_weight = _weighted(y, sample_weight, class_weight)
    found = {"x": x, "y": {_IDS: ids} if y is None else {_IDS: ids, _Y: y}}
    if sample_weight is None:
        return found
    if len(np.shape(sample_weight)) != 1:  # Keras wants one array for each of `y`, or one a row
        sample_weight = {_IDS: np.ones(len(ids)), _Y: sample_weight}
    return {**found, "sample_weight": sample_weight}


def unpacked(data: Any) -> tuple[Any, Any]:
    """A batch as `fit` hands it on, without its ids; and those, `[B]`, or None."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    y, ids = without_ids(y)
    if ids is None:
        return data, None
    _expect_rows(ids)
    if isinstance(sample_weight, dict) and _IDS in sample_weight:
        # `fit` gives each entry of `y` its own, also where it was given one array.
        sample_weight = sample_weight.get(_Y, sample_weight[_IDS])
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight), ids


def plain_batch(data: Any) -> Any:
    """A batch as `fit` hands it on, without its ids."""
    return unpacked(data)[0]


def without_ids(y: Any) -> tuple[Any, Any]:
    """The targets themselves, and the ids that are packed with them, or None."""
    if isinstance(y, dict) and _IDS in y:
        return y.get(_Y), y[_IDS]
    return y, None


def is_packed(data: Any) -> bool:
    """Whether these are arrays as `with_ids` answers them."""
    return isinstance(data, dict) and without_ids(data.get("y"))[1] is not None


def _expect_no_ids(x: Any, y: Any) -> None:
    if isinstance(x, tf.data.Dataset):
        y = keras.utils.unpack_x_y_sample_weight(x.element_spec)[1]
    if is_packed(x) or without_ids(y)[1] is not None:
        raise DataError(
            "These data have ids already: give them to `fit` as they are. "
            f"Received: what `with_ids` answered, in `{'y' if is_packed({'y': y}) else 'x'}`."
        )


def _expect_rows(ids: Any) -> None:
    if len(ids.shape) != 1:
        raise DataError(
            "Ids are one a row, and these are not: the dataset was taken for one of rows where it "
            "had batches, or the reverse. Give `with_ids` the dataset after its last `.batch`. "
            f"Received: ids of shape {tuple(ids.shape)}."
        )


def _checked(ids: Any, rows: int) -> np.ndarray:
    if ids is None:
        return np.arange(rows, dtype=np.int64)
    ids = np.asarray(ids)
    if ids.shape != (rows,) or ids.dtype.kind not in "iu":
        raise DataError(
            f"`ids` are whole numbers, one a row. Expected: shape ({rows},). "
            f"Received: shape {ids.shape} of dtype {ids.dtype}."
        )
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            "`ids` repeat, so that two rows could not be told apart. Give each row its own, or "
            f"none for 0 … N - 1. Received: {values[counts > 1][:5].tolist()} more than once."
        )
    if ids.dtype.kind == "u" and len(ids) and ids.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"`ids` are whole numbers of at most 63 bits. Received: ids up to {ids.max()}."
        )
    return ids.astype(np.int64)


def _weighted(y: Any, sample_weight: Any, class_weight: dict) -> np.ndarray:
    """Each row's class weight, times its sample weight."""
    y = np.asarray(y)
    classes = y.argmax(-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y), -1)[:, 0]
    weights = np.array([class_weight.get(int(c), 1.0) for c in classes], keras.config.floatx())
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


def _of_dataset(
    data: tf.data.Dataset, y: Any, sample_weight: Any, ids: Any, class_weight: Any
) -> tf.data.Dataset:
    if any(each is not None for each in (y, sample_weight, ids, class_weight)):
        raise DataError(
            "A dataset brings its own targets and weights, and its rows are counted through. "
            "Received: `y`, `sample_weight`, `ids` or `class_weight` beside a tf.data.Dataset."
        )
    _expect_one_number_a_row(data)
    # A batch's rows are counted by what the batches before it had.
    batched = _is_batched(data)

    def number(count: tf.Tensor, parts: tuple) -> tuple[tf.Tensor, tuple]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(parts)
        size = tf.shape(keras.tree.flatten(x)[0], out_type=tf.int64)[0] if batched else 1
        ids = count + tf.range(size, dtype=tf.int64) if batched else count
        packed = {_IDS: ids} if y is None else {_IDS: ids, _Y: y}
        rest = () if sample_weight is None else (sample_weight,)
        return count + size, (x, packed, *rest)

    return data.scan(np.int64(0), lambda count, *parts: number(count, _one(parts)))


def _one(parts: tuple) -> Any:
    return parts[0] if len(parts) == 1 else parts


def _is_batched(data: tf.data.Dataset) -> bool:
    """Whether its elements are batches.

    Raises:
        DataError: that cannot be told, as of a generator with elements of fixed shapes.
    """
    known = _keras.has_batches(data)
    if known is not None:
        return known
    sizes = [
        spec.shape[0] if spec.shape.rank else () for spec in tf.nest.flatten(data.element_spec)
    ]
    if () in sizes or len(set(sizes)) > 1:
        return False
    if sizes[0] is None:
        return True
    raise DataError(
        "It cannot be told whether the dataset has rows or batches of them. End it with "
        "`.batch(n)` if rows, with `.rebatch(n)` if batches. "
        f"Received: elements {data.element_spec}."
    )


def _expect_one_number_a_row(data: tf.data.Dataset) -> None:
    for name in _keras.transformations(data):
        for kind, (done, todo, because) in _BEFORE.items():
            if kind in name:
                raise DataError(
                    f"The dataset is {done} already, so that {because}. Give it to `with_ids` "
                    f"first, and {todo} what comes back. Received: a {name}."
                )
