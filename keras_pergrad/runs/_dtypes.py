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


def dtypes_of(operations: Sequence[tf.Operation]) -> set[str]:
    """What traced operations compute in; those inside of functions are not looked at."""
    found = {
        output.dtype.name
        for operation in operations
        if operation.type not in _GIVEN
        for output in operation.outputs
    }
    return {_PARTS.get(name, name) for name in found}
