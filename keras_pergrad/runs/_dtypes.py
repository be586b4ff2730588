"""In which floating-point dtypes a model computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

_COARSE_FIRST = ("float16", "bfloat16", "float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}
# They compute nothing: what they give is used as it is, or cast.
_GIVEN = frozenset(("Const", "Placeholder", "ReadVariableOp"))


def coarsest(dtypes: Iterable[str | None]) -> str | None:
    """The coarsest of the floating-point dtypes among some."""
    used = set(dtypes)
    return next((dtype for dtype in _COARSE_FIRST if dtype in used), None)


def dtypes_of(operations: Sequence[tf.Operation], loss: tf.Tensor) -> set[str]:
    """What those of the operations compute in that the loss is made by.

    Those of constants alone are left out, and those inside of functions are not looked at.
    """
    found = {
        output.dtype.name
        for operation in _ancestors(operations, loss)
        if operation.type not in _GIVEN
        for output in operation.outputs
    }
    return {_PARTS.get(name, name) for name in found}


def _ancestors(operations: Sequence[tf.Operation], loss: tf.Tensor) -> list[tf.Operation]:
    """The operations that a tensor depends on, and that depend on more than constants."""
    varying: dict[str, tf.Operation] = {}
    constant: set[str] = set()
    for operation in operations:
        inputs = {tensor.op.name for tensor in operation.inputs}
        if operation.type == "Const" or (inputs and inputs <= constant):
            constant.add(operation.name)
        else:
            varying[operation.name] = operation
    reached, rest = [], [loss.op.name]
    while rest:
        operation = varying.pop(rest.pop(), None)
        if operation is not None:
            reached.append(operation)
            rest += [tensor.op.name for tensor in operation.inputs]
    return reached
