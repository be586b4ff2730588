"""A batch: what one training step is given, with the samples on the leading axis of every leaf."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.errors import DataError

_COMPOSITE = (tf.RaggedTensor, tf.SparseTensor)


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """Applies `function` to every leaf of a nested structure; a `None` leaf stays `None`."""
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(leaf), structure
    )


def leaves(structure: Any) -> list[Any]:
    """The leaves of a nested structure that are not `None`."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        x, y, sample_weight: nested structures of tensors, each `[B, ...]`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of(cls, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        """Makes tensors of whatever `fit` takes as one batch, and checks that the leaves fit.

        Raises:
            DataError: a leaf has no samples axis, or the leading sizes differ.
        """
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
            _refuse_data_sets(name, value)
        batch = cls(*(map_leaves(_to_tensor, part) for part in (x, y, sample_weight)))
        batch.check()
        return batch

    def check(self) -> None:
        """Compares the leading sizes that are known while tracing.

        Raises:
            DataError: there are no inputs, or two sizes differ.
        """
        sizes = {name: _known_sizes(part) for name, part in self._parts()}
        found = {size for each in sizes.values() for size in each}
        if not leaves(self.x):
            raise DataError("A batch needs inputs to know its samples by. Received: x=None.")
        if len(found) > 1:
            raise _different_sizes(sizes)

    def sizes(self) -> tf.Tensor:
        """The leading sizes of all leaves while the model runs, `[leaves]`."""
        return tf.stack([_size(leaf) for _, part in self._parts() for leaf in leaves(part)])

    def different_sizes(self, sizes: np.ndarray) -> DataError:
        """What to say of `sizes()` that are not all the same."""
        rest = [int(size) for size in sizes]  # of a batch with very many leaves, the first ones
        counts = {name: len(leaves(part)) for name, part in self._parts()}
        return _different_sizes(
            {name: [rest.pop(0) for _ in range(count) if rest] for name, count in counts.items()}
        )

    def given(self, x: Any) -> Batch:
        """The same batch with other tensors for its inputs."""
        return Batch(x, self.y, self.sample_weight)

    def after(self, operations: list[Any]) -> Batch:
        """The same batch, which waits for `operations`."""
        with tf.control_dependencies([each for each in operations if each is not None]):
            return Batch(*(map_leaves(tf.identity, part) for _, part in self._parts()))

    def _parts(self) -> Iterable[tuple[str, Any]]:
        return ("x", self.x), ("y", self.y), ("sample_weight", self.sample_weight)

    @property
    def size(self) -> int | tf.Tensor:
        """The number of samples: a Python number where it is known, else a scalar tensor."""
        return _size(leaves(self.x)[0])

    def rows(self, indices: tf.Tensor) -> Batch:
        """The batch of the samples at `indices [b]`, in that order."""
        return Batch(*(map_leaves(lambda leaf: take(leaf, indices), p) for _, p in self._parts()))

    def row(self, index: tf.Tensor) -> Batch:
        """Sample `index` as a batch of one."""
        return self.rows(tf.reshape(index, [1]))

    @property
    def is_dense(self) -> bool:
        """Whether every leaf is an ordinary tensor."""
        parts = [self.x, self.y, self.sample_weight]
        return not any(isinstance(leaf, _COMPOSITE) for leaf in leaves(parts))


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


def _size(leaf: Any) -> int | tf.Tensor:
    known = leaf.shape[0]
    if known is not None:
        return int(known)
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    return tf.shape(leaf)[0] if isinstance(leaf, tf.Tensor) else leaf.nrows(tf.int32)


def _different_sizes(sizes: dict[str, list[int]]) -> DataError:
    shown = {name: _one_or_all(each) for name, each in sizes.items() if each}
    return DataError(
        "The parts of a batch have different numbers of samples, and Keras would repeat the "
        "shorter ones or stop in the middle of a step. Give every leaf the same leading size. "
        f"Received: {shown}."
    )


def _to_tensor(leaf: Any) -> Any:
    if isinstance(leaf, (tf.Tensor, *_COMPOSITE)):
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


def _refuse_data_sets(name: str, value: Any) -> None:
    data_set = isinstance(value, tf.data.Dataset | keras.utils.PyDataset | types.FunctionType)
    if data_set or hasattr(value, "__next__"):
        raise DataError(
            f"`{name}` is a whole data set, or makes one, and this function takes one batch. Take "
            "one, for example `x, y = next(iter(dataset))`. "
            f"Received: {name}={type(value).__name__}."
        )


def _known_sizes(structure: Any) -> list[int]:
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


def _one_or_all(sizes: list[int]) -> int | list[int]:
    return sizes[0] if len(set(sizes)) == 1 else sizes
