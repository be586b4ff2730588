"""Which entries of a tensor are a sample's: read off a trace at a prime number of samples.

In a graph traced for `p` samples, `p` a prime that divides no other size in the model, an axis with
a multiple of `p` entries carries the samples. In what order, and whether it is still the samples'
own order, the operations tell that led there; one that is not known leaves it open.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.sites import _axes


@dataclass(frozen=True)
class Layout:
    """Where the samples are: entry `(o B + i) inner + r` of `axis` belongs to sample `i`.

    Attributes:
        axis: the axis that the samples are on.
        outer: what runs slower than the samples on it.
        inner: what runs faster.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    def by_sample(self, value: tf.Tensor) -> tf.Tensor:
        """`value` as `[B, outer, inner, ...]`: the samples first, the other axes in their order."""
        shape, axis = value.shape.as_list(), self.axis
        if axis == 0 and self.outer == 1:  # in order already: nothing is copied
            return tf.reshape(value, [-1, 1, self.inner, *shape[1:]])
        known = [size if k != axis else -1 for k, size in enumerate(shape)]
        apart = [*known[:axis], self.outer, -1, self.inner, *known[axis + 1 :]]
        value = tf.reshape(value, apart)
        order = [axis + 1, axis, axis + 2]
        order += [k for k in range(len(apart)) if k not in order]
        return tf.transpose(value, order)

    def of_one(self, value: tf.Tensor) -> tf.Tensor:
        """One sample's `[outer, inner, ...]` in the operation's own shape, as a batch of one."""
        axis = self.axis
        order = [*range(2, axis + 2), 0, 1, *range(axis + 2, value.shape.rank)]
        value = tf.transpose(value, order)
        shape = value.shape.as_list()
        return tf.reshape(value, [*shape[:axis], self.outer * self.inner, *shape[axis + 2 :]])


class Layouts:
    """The layouts of the tensors of one trace, worked out as they are asked for.

    Args:
        prime: the number of samples that was traced.
    """

    def __init__(self, prime: int):
        self.prime = prime
        self._known: dict[object, Layout | None] = {}

    def bears_samples(self, tensor: tf.Tensor) -> bool:
        """Whether an axis of the tensor has the samples on it."""
        return bool(self._axes(tensor))

    def of(self, tensor: tf.Tensor) -> Layout | None:
        """The layout of a tensor that bears samples; None where it cannot be known for certain."""
        waiting = [tensor]
        while waiting:  # not by recursion: the steps of a long sequence are a deep graph
            each = waiting[-1]
            unknown = [
                source
                for source in each.op.inputs
                if self.bears_samples(source) and source.ref() not in self._known
            ]
            if each.ref() in self._known or not unknown:
                self._known.setdefault(each.ref(), self._find(each))
                waiting.pop()
            else:
                waiting += unknown
        return self._known[tensor.ref()]

    def _axes(self, tensor: tf.Tensor) -> list[int]:
        if tensor.shape.rank is None:
            return []
        sizes = tensor.shape.as_list()
        return [k for k, size in enumerate(sizes) if size and size % self.prime == 0]

    def _find(self, tensor: tf.Tensor) -> Layout | None:
        axes = self._axes(tensor)
        if len(axes) != 1 or None in tensor.shape.as_list():
            return None
        sources = [
            _axes.Source(k, source, self._known[source.ref()])
            for k, source in enumerate(tensor.op.inputs)
            if self.bears_samples(source)
        ]
        if not sources:  # data, or made for so many samples: zeros, noise, a repeated weight
            return Layout(axes[0]) if tensor.shape[axes[0]] == self.prime else None
        if any(source.layout is None for source in sources):
            return None
        kept = _axes.kept_by(tensor, axes[0], sources)
        if kept is None:
            return None
        outer, inner = kept
        whole = outer * inner * self.prime == tensor.shape[axes[0]]
        return Layout(axes[0], outer, inner) if whole else None
