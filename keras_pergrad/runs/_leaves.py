"""The leaves of a batch: dense, ragged and sparse tensors with the samples on the leading axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.errors import DataError

# Tensors that are made of several.
COMPOSITE = (tf.RaggedTensor, tf.SparseTensor)


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """Applies `function` to every leaf of a nested structure; a `None` leaf stays `None`."""
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), structure
    )


def leaves(structure: Any) -> list[Any]:
    """The leaves of a nested structure that are not `None`."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def take(leaf: Any, indices: tf.Tensor) -> Any:
    """The rows of a dense, ragged or sparse leaf at `indices [b]`."""
    if not isinstance(leaf, tf.SparseTensor):
        return tf.gather(leaf, indices)
    if indices.shape[0] != 1:
        return tf.sparse.concat(
            0, [take(leaf, indices[k : k + 1]) for k in range(indices.shape[0])]
        )
    rest = leaf.dense_shape[1:]
    start = tf.concat([tf.cast(indices, tf.int64), tf.zeros_like(rest)], axis=0)
    row = tf.sparse.slice(leaf, start, tf.concat([[1], rest], axis=0))
    row.set_shape([1, *leaf.shape[1:]])
    return row


def size_of(leaf: Any) -> int | tf.Tensor:
    """The number of samples: a Python number where it is known, else a scalar tensor."""
    known = leaf.shape[0]
    if known is not None:
        return int(known)
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    return tf.shape(leaf)[0] if isinstance(leaf, tf.Tensor) else leaf.nrows(tf.int32)


def to_tensor(leaf: Any) -> Any:
    """A tensor of what `fit` takes as a leaf; numbers in Keras' `floatx`.

    Raises:
        DataError: the rows have different lengths, or are no numbers.
    """
    if isinstance(leaf, (tf.Tensor, *COMPOSITE)):
        return leaf
    if isinstance(leaf, tf.Variable | keras.Variable):
        return tf.convert_to_tensor(leaf)
    array = np.asarray(leaf)
    if array.dtype.kind in "US":
        return tf.constant(array.astype(object))
    if array.dtype.kind == "f":
        array = array.astype(keras.config.floatx())
    if array.dtype.kind == "O":
        return _object_tensor(leaf, array)
    return tf.convert_to_tensor(array)


def _object_tensor(leaf: Any, array: np.ndarray) -> tf.Tensor:
    try:
        return tf.convert_to_tensor(leaf)
    except (ValueError, TypeError) as error:
        raise DataError(
            "A leaf of the batch is neither numbers nor strings of one shape. Pad the rows to one "
            "length, or pass a tf.RaggedTensor. "
            f"Received: {type(leaf).__name__} of shape {array.shape}."
        ) from error


def known_sizes(structure: Any) -> list[int]:
    """The numbers of samples of all leaves of which they are known while tracing.

    Raises:
        DataError: a leaf has no samples axis.
    """
    sizes = []
    for leaf in leaves(structure):
        if leaf.shape.rank == 0:
            raise DataError(
                "Every leaf of a batch needs a leading axis that counts the samples, also for a "
                "batch of one: add it with `leaf[None]`. Received: a leaf of shape ()."
            )
        if leaf.shape.rank is not None and leaf.shape[0] is not None:
            sizes.append(int(leaf.shape[0]))
    return sizes
