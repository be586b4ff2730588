"""Factors: representations of the sample gradients of one weight."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

# How many vectors of signs a sum is compared by, and what they are drawn from.
_SIGNS, _SEED = 4, (0x51, 0x67)


class Factor(abc.ABC):
    """The gradients of `b` samples with respect to one weight, in whatever form.

    A frozen dataclass of tensors, each `[b, ...]` or a scalar for all samples, of other factors and
    of settings. All questions but `materialize` are accumulated, and answered, in float32 at least.

    Attributes:
        form: what `SampleGradients.summary` calls it.
        writes_out: whether `gram` and `sum_of_squares` write the gradients out.
    """

    form: ClassVar[str]
    writes_out: bool = True

    @property
    @abc.abstractmethod
    def entries(self) -> int:
        """How many numbers the gradient of one sample is."""

    @abc.abstractmethod
    def squared_norms(self) -> tf.Tensor:
        """`‖g_i‖²`, `[b]`."""

    @abc.abstractmethod
    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        """`Σ_i w_i g_i` in the weight's shape; `weights [b]`, None for ones."""

    @abc.abstractmethod
    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        """`⟨g_i, v⟩`, `[b]`, for one `v` in the weight's shape."""

    @abc.abstractmethod
    def gram(self, other: Factor) -> tf.Tensor:
        """`⟨g_i, h_j⟩`, `[b, c]`, with the gradients of `c` other samples."""

    @abc.abstractmethod
    def sum_of_squares(self) -> tf.Tensor:
        """`Σ_i g_i∘g_i` in the weight's shape."""

    @abc.abstractmethod
    def materialize(self) -> tf.Tensor:
        """The gradients themselves, `[b, *weight.shape]`."""

    @property
    def written_out(self) -> bool:
        """Whether the gradients are there as they are."""
        return False

    @property
    def meets_few(self) -> bool:
        """Whether inner products of all samples with all cost less than with one whole gradient."""
        return False

    def projected_sum(self) -> tf.Tensor:
        """`projected(Σ_i g_i)`."""
        return projected(self.weighted_sum(None))

    def cheapest(self) -> Factor:
        """The same gradients, written out where that is cheaper to ask and no larger to keep."""
        return self


def rows_of(factor: Factor, indices: tf.Tensor) -> Any:
    """The factor of the samples at `indices [c]` alone."""
    return _by_sample(factor, lambda each: tf.gather(each, indices))


def zero_where_not(valid: tf.Tensor, factor: Factor) -> Any:
    """The factor with zeros, NaN or not before, for the samples that are not `valid [b]`."""
    return _by_sample(factor, lambda each: rows_where(valid, each))


def rows_where(valid: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values [b, ...]`, zero in the rows that are not `valid [b]`."""
    shape = tf.concat([tf.shape(valid), tf.ones([values.shape.rank - 1], tf.int32)], axis=0)
    return tf.where(tf.reshape(valid, shape), values, tf.zeros((), values.dtype))


def tensors_of(factor: Factor) -> list[tf.Tensor]:
    """The tensors that a factor holds, in the order of its fields."""
    found: list[tf.Tensor] = []
    for value in _fields(factor).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Factor):
                found += tensors_of(each)
            elif isinstance(each, tf.Tensor):
                found.append(each)
    return found


def with_tensors(factor: Any, tensors: list[tf.Tensor]) -> Any:
    """The same factor holding other tensors, taken from the front of `tensors`."""

    def refilled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(refilled(each) for each in value)
        if isinstance(value, Factor):
            return with_tensors(value, tensors)
        return tensors.pop(0) if isinstance(value, tf.Tensor) else value

    return dataclasses.replace(factor, **{k: refilled(v) for k, v in _fields(factor).items()})


def projected(gradient: tf.Tensor) -> tf.Tensor:
    """A weight's gradient times a few vectors of random signs, by which it is told from another.

    `E ‖M s‖² = ‖M‖²`: norms, also of differences, are right on average, and not zero where those
    are not, but by a chance that no tolerance would see (Freivalds 1977). Vectors stay as they are.
    """
    gradient = wide(gradient)
    if len(gradient.shape) < 2:
        return gradient
    rows = tf.reshape(gradient, [-1, gradient.shape[-1]])
    return tf.matmul(rows, signs(gradient.shape[-1], gradient.dtype))


def projected_zeros(weight: tf.Tensor) -> tf.Tensor:
    """What `projected` makes of zeros in a weight's shape, without these."""
    matrix = len(weight.shape) > 1
    shape = [math.prod(weight.shape[:-1]), _SIGNS] if matrix else weight.shape
    return tf.zeros(shape, wide(tf.zeros([], weight.dtype)).dtype)


def signs(size: int, dtype: tf.DType) -> tf.Tensor:
    """`[size, _SIGNS]`, always the same; of norm one in each row."""
    draws = tf.random.stateless_uniform([size, _SIGNS], _SEED)
    return tf.cast(tf.sign(draws - 0.5), dtype) / _SIGNS**0.5


def wide(values: tf.Tensor) -> tf.Tensor:
    """float32 in place of float16 and bfloat16: what sums and squares are accumulated in."""
    narrow = values.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(values, tf.float32) if narrow else values


def _by_sample(factor: Factor, change: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """The same factor with `change` made to its tensors; scalars belong to all samples."""
    held = tensors_of(factor)
    return with_tensors(factor, [change(each) if each.shape.rank else each for each in held])


def _fields(factor: Any) -> dict[str, Any]:
    return {field.name: getattr(factor, field.name) for field in dataclasses.fields(factor)}
