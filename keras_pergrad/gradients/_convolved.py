"""`Convolved`: gradients of a filter, from the images it slid over and the gradients it met."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.gradients._factor import Factor, wide
from keras_pergrad.gradients._materialized import Materialized

# Up to so many numbers, patches are made at once; more are cheaper slice by slice.
_FEW = 32


@dataclass(frozen=True)
class Convolved(Factor):
    """The gradient of a filter `[h, w, I, O]` of a two-dimensional convolution.

    At each offset in the filter it is a product `X_iᵀ G_i` over positions, with `X_i` the image
    shifted by the offset, so that no patches are copied.

    Attributes:
        images: `[b, n, H, W, I]`, padded; `n` images a sample.
        right: `G [b, n, H', W', O]`.
        window: `(h, w)`.
        strides, dilations: of the convolution.
    """

    images: tf.Tensor
    right: tf.Tensor
    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    form = "factored"

    @property
    def entries(self) -> int:
        return math.prod(self._shape())

    def cheapest(self) -> Factor:
        kept = math.prod(self.images.shape[1:]) + math.prod(self.right.shape[1:])
        lazy = self._gram_is_cheaper() or math.prod(self._shape()) > kept
        return self if lazy else Materialized(self.materialize())

    def squared_norms(self) -> tf.Tensor:
        if self._gram_is_cheaper():
            right = self.by_position()
            total = tf.zeros((), right.dtype)
            for left in self.shifts():
                total += tf.matmul(left, left, transpose_b=True)
            return tf.reduce_sum(total * tf.matmul(right, right, transpose_b=True), axis=[1, 2])
        return tf.add_n([tf.reduce_sum(tf.square(m), axis=[1, 2]) for m in self._matrices()])

    def weighted_sum(self, weights: tf.Tensor | None) -> tf.Tensor:
        right = wide(self.right)
        if weights is not None:
            right *= tf.cast(weights, right.dtype)[:, None, None, None, None]
        if self.dilations != (1, 1):  # TensorFlow has no such kernel on the CPU
            rows = tf.reshape(right, [-1, right.shape[-1]])
            lefts = [tf.reshape(left, [-1, left.shape[-1]]) for left in self.shifts()]
            sums = [tf.matmul(left, rows, transpose_a=True) for left in lefts]
            return tf.reshape(tf.stack(sums), self._shape())
        return tf.raw_ops.Conv2DBackpropFilter(
            input=_merged(wide(self.images)),
            filter_sizes=self._shape(),
            out_backprop=_merged(right),
            **self._options(),
        )

    def dot(self, vector: tf.Tensor) -> tf.Tensor:
        images = wide(self.images)
        filters = tf.reshape(tf.cast(vector, images.dtype), self._shape())
        pushed = tf.raw_ops.Conv2D(input=_merged(images), filter=filters, **self._options())
        right = wide(self.right)
        return tf.reduce_sum(tf.reshape(pushed, tf.shape(right)) * right, axis=[1, 2, 3, 4])

    def gram(self, other: Factor) -> tf.Tensor:
        return Materialized(wide(self.materialize())).gram(other)

    def sum_of_squares(self) -> tf.Tensor:
        sums = [tf.reduce_sum(tf.square(matrix), axis=0) for matrix in self._matrices()]
        return tf.reshape(tf.stack(sums), self._shape())

    def materialize(self) -> tf.Tensor:
        if math.prod(self.window) * self.images.shape[-1] <= _FEW:
            rows = tf.matmul(self._patches(), self.by_position(), transpose_a=True)
        else:
            rows = tf.stack(self._matrices(), axis=1)
        return tf.reshape(rows, [-1, *self._shape()])

    def shifts(self) -> list[tf.Tensor]:
        """The images at each offset in the filter, `[b, T, I]`."""
        return [self._shift(*offset) for offset in self._offsets()]

    def _offsets(self) -> list[tuple[int, int]]:
        height, width = self.window
        return list(itertools.product(range(height), range(width)))

    def _shift(self, row: int, column: int) -> tf.Tensor:
        """The images at one offset, `[b, T, I]`."""
        images = wide(self.images)
        height, width = self.right.shape[2:4]
        top, left = row * self.dilations[0], column * self.dilations[1]
        down, across = self.strides
        bottom, side = top + (height - 1) * down + 1, left + (width - 1) * across + 1
        piece = images[:, :, top:bottom:down, left:side:across]
        return tf.reshape(piece, [-1, self._positions(), images.shape[-1]])

    def by_position(self) -> tf.Tensor:
        """The gradients at each position, `[b, T, O]`."""
        return tf.reshape(wide(self.right), [-1, self._positions(), self.right.shape[-1]])

    def _patches(self) -> tf.Tensor:
        """What the filter covers at each position, `[b, T, h w I]`.

        Of few numbers each, a convolution with the identity copies them faster than slices do.
        """
        images, window = wide(self.images), self.window
        size = math.prod(window) * images.shape[-1]
        identity = tf.reshape(tf.eye(size, dtype=images.dtype), [*window, -1, size])
        patches = tf.nn.conv2d(
            _merged(images), identity, self.strides, "VALID", dilations=self.dilations
        )
        return tf.reshape(patches, [-1, self._positions(), size])

    def _matrices(self) -> list[tf.Tensor]:
        """The gradients at each offset, `[b, I, O]`; one after the other, as each needs a copy."""
        right = self.by_position()
        found: list[tf.Tensor] = []
        for offset in self._offsets():
            with tf.control_dependencies(found[-1:]):
                left = self._shift(*offset)
            found.append(tf.matmul(left, right, transpose_a=True))
        return found

    def _positions(self) -> int:
        return math.prod(self.right.shape[1:4])

    def _shape(self) -> list[int]:
        return [*self.window, self.images.shape[-1], self.right.shape[-1]]

    def _options(self) -> dict:
        return {
            "strides": [1, *self.strides, 1],
            "dilations": [1, *self.dilations, 1],
            "padding": "VALID",
        }

    def _gram_is_cheaper(self) -> bool:
        """Multiplications: `T²(k I + O)` for the Gram form of `k` offsets, else `T k I O`."""
        *window, inputs, outputs = self._shape()
        offsets = math.prod(window)
        gram = self._positions() * (offsets * inputs + outputs)
        return gram < offsets * inputs * outputs


def _merged(value: tf.Tensor) -> tf.Tensor:
    """`[b, n, ...]` → `[b n, ...]`."""
    return tf.reshape(value, [-1, *value.shape[2:]])
