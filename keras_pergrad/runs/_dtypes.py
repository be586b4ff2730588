"""In which floating-point dtypes a model computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from keras_pergrad import _keras

_COARSE_FIRST = ("float16", "bfloat16", "float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}


def coarsest(dtypes: Iterable[str | None]) -> str | None:
    """The coarsest of the floating-point dtypes among some."""
    used = set(dtypes)
    return next((dtype for dtype in _COARSE_FIRST if dtype in used), None)


def dtypes_of(
    operations: Sequence[tf.Operation], weights: Iterable[tf.Tensor], loss: tf.Tensor
) -> set[str]:
    """What operations compute in on the way from weights to a loss; not those inside functions."""
    found = {
        output.dtype.name
        for operation in _between(operations, weights, loss)
        for output in operation.outputs
    }
    return {_PARTS.get(name, name) for name in found}


def _between(
    operations: Sequence[tf.Operation], weights: Iterable[tf.Tensor], loss: tf.Tensor
) -> list[tf.Operation]:
    """The operations that depend on a weight, and that a loss depends on."""
    reached = _keras.depending_on(weights, operations)
    after = {o.name: o for o in operations if any(each.ref() in reached for each in o.inputs)}
    between, rest = [], [loss.op.name]
    while rest:
        found = after.pop(rest.pop(), None)
        if found is not None:
            between.append(found)
            rest += [tensor.op.name for tensor in found.inputs]
    return between
