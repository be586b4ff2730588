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
from keras_pergrad.runs._leaves import (
    COMPOSITE,
    known_sizes,
    leaves,
    map_leaves,
    size_of,
    take,
    to_tensor,
)


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
        return cls._checked(to_tensor, x, y, sample_weight)

    @classmethod
    def in_training(cls, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        """What Keras hands a training step, in the dtypes that it has; arrays where it is eager.

        Raises:
            DataError: a leaf has no samples axis, or the leading sizes differ.
        """

        def as_given(leaf: Any) -> Any:
            return tf.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf

        return cls._checked(as_given, x, y, sample_weight)

    @classmethod
    def _checked(cls, convert: Callable[[Any], Any], *parts: Any) -> Batch:
        batch = cls(*(map_leaves(convert, part) for part in parts))
        batch.check()
        return batch

    def check(self) -> None:
        """Compares the leading sizes that are known while tracing.

        Raises:
            DataError: there are no inputs, or two sizes differ.
        """
        sizes = {name: known_sizes(part) for name, part in self._parts()}
        found = {size for each in sizes.values() for size in each}
        if not leaves(self.x):
            raise DataError("A batch needs inputs to know its samples by. Received: x=None.")
        if len(found) > 1:
            raise _different_sizes(sizes)

    def sizes(self) -> tf.Tensor:
        """The leading sizes of all leaves while the model runs, `[leaves]`."""
        return tf.stack([size_of(leaf) for leaf in self.leaves])

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
            return self.map(tf.identity)

    def map(self, function: Callable[[Any], Any]) -> Batch:
        """The batch of what `function` makes of each leaf, in the order of `leaves`."""
        return Batch(*(map_leaves(function, part) for _, part in self._parts()))

    def doubled(self) -> Batch:
        """The same batch in double precision, but for whole numbers and strings."""
        return self.map(lambda e: tf.cast(e, tf.float64) if e.dtype.is_floating else e)

    @property
    def leaves(self) -> list[Any]:
        """All leaves that are not `None`."""
        return [leaf for _, part in self._parts() for leaf in leaves(part)]

    def _parts(self) -> Iterable[tuple[str, Any]]:
        return ("x", self.x), ("y", self.y), ("sample_weight", self.sample_weight)

    @property
    def size(self) -> int | tf.Tensor:
        """The number of samples: a Python number where it is known, else a scalar tensor."""
        return size_of(leaves(self.x)[0])

    def rows(self, indices: tf.Tensor) -> Batch:
        """The batch of the samples at `indices [b]`, in that order."""
        return self.map(lambda leaf: take(leaf, indices))

    def row(self, index: tf.Tensor) -> Batch:
        """Sample `index` as a batch of one."""
        return self.rows(tf.reshape(index, [1]))

    @property
    def is_dense(self) -> bool:
        """Whether every leaf is an ordinary tensor."""
        return not any(isinstance(leaf, COMPOSITE) for leaf in self.leaves)


def _different_sizes(sizes: dict[str, list[int]]) -> DataError:
    shown = {name: _one_or_all(each) for name, each in sizes.items() if each}
    return DataError(
        "The parts of a batch have different numbers of samples, and Keras would repeat the "
        "shorter ones or stop in the middle of a step. Give every leaf the same leading size. "
        f"Received: {shown}.",
        causes=("broadcast",),
    )


def _refuse_data_sets(name: str, value: Any) -> None:
    data_set = isinstance(value, tf.data.Dataset | keras.utils.PyDataset | types.FunctionType)
    if data_set or hasattr(value, "__next__"):
        raise DataError(
            f"`{name}` is a whole data set, or makes one, and this function takes one batch. Take "
            "one, for example `x, y = next(iter(dataset))`. "
            f"Received: {name}={type(value).__name__}."
        )


def _one_or_all(sizes: list[int]) -> int | list[int]:
    return sizes[0] if len(set(sizes)) == 1 else sizes
