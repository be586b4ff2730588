"""A traced computation, seen from a tensor: who uses it, and what depends on it."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad import _keras


@dataclass(frozen=True)
class Use:
    """One operand of one operation."""

    operation: tf.Operation
    operand: int


class Trace:
    """The operations that one run added to a graph, in their order.

    Args:
        operations: the operations.
    """

    def __init__(self, operations: Sequence[tf.Operation]):
        self.operations = list(operations)
        self._order = {id(operation): k for k, operation in enumerate(self.operations)}
        self._uses: dict[object, list[Use]] = defaultdict(list)
        for operation in self.operations:
            for operand, tensor in enumerate(operation.inputs):
                self._uses[tensor.ref()].append(Use(operation, operand))

    def uses(self, tensor: tf.Tensor) -> list[Use]:
        """Who uses a tensor, in the order in which they were traced."""
        return self._uses[tensor.ref()]

    def number(self, use: Use) -> int:
        """How many operations were traced before the one of a use."""
        return self._order[id(use.operation)]

    def uses_of_any(self, tensors: Iterable[tf.Tensor]) -> list[Use]:
        """Who uses one of several tensors, in the order in which they were traced."""
        uses = [use for tensor in tensors for use in self.uses(tensor)]
        return sorted(uses, key=self.number)

    def depending_on(self, sources: Iterable[tf.Tensor]) -> set[object]:
        """References of all tensors that depend on one of `sources`."""
        return _keras.depending_on(sources, self.operations)

    def sizes(self) -> set[int]:
        """Every size of an axis that occurs."""
        shapes = [t.shape for o in self.operations for t in o.outputs if t.shape.rank]
        return {size for shape in shapes for size in shape if size}


def prime_for(sizes: set[int]) -> int:
    """A prime number of samples that divides no size but that of the samples' axes."""
    return next(p for p in _primes() if all(size % p for size in sizes))


def _primes() -> Iterator[int]:
    """From about 200 on: small enough for code that loops over the samples in Python."""
    numbers = itertools.count(211, 2)
    return (n for n in numbers if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))
