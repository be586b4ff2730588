"""Shapes that meet and are stretched against each other without a word: `[B]` against `[B, 1]`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tensorflow as tf

from keras_pergrad.engines import gist, prime_traced
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case

KIND = "broadcast"
_ELEMENTWISE = (
    "Add AddV2 Sub Mul RealDiv Div DivNoNan SquaredDifference Maximum Minimum Pow Greater "
    "GreaterEqual Less LessEqual Equal NotEqual LogicalAnd LogicalOr SelectV2 Xlogy Xdivy"
).split()


def broadcast(case: Case) -> Iterator[Cause]:
    """The first place where two tensors of one number a sample make one of a number for each pair.

    Only where their ranks differ: who lays samples against samples on purpose adds an axis to both.
    """
    if all(output.kind == "plain" for output in case.outputs) and not case.mixing:
        return
    try:
        prime, traced = prime_traced(case.run)
    except ValueError as error:
        yield from _only_this_size(case, error)
        return
    for number, operation in enumerate(traced.operations):
        if operation.type in _ELEMENTWISE and _is_stretched(operation, prime):
            where = "the forward pass" if number < traced.forward else _where(case)
            explains = case.difference.undo(loss=True) if number >= traced.forward else None
            because, remedy = _words(operation, prime)
            case.blamed.add(where)
            yield Cause(KIND, where, because, remedy, explains)
            return


def _only_this_size(case: Case, error: ValueError) -> Iterator[Cause]:
    """Shapes that fit each other only because two sizes are equal by chance."""
    said = re.search(r"Dimensions must be equal[^{]*|Incompatible shapes[^{]*", str(error))
    tied = [output.where for output in case.outputs if output.kind != "plain"]
    if said and tied:
        explains = case.difference.undo(loss=True)
        case.blamed.add(tied[0])
        because = (
            "It can be computed for this number of samples alone, as two tensors fit each other "
            f"only where that is the length of another axis: {gist(error)}"
        )
        remedy = "Give what has one number a sample a trailing axis, `[:, None]`."
        yield Cause(KIND, tied[0], because, remedy, explains)


def _is_stretched(operation: tf.Operation, prime: int) -> bool:
    shapes = [tensor.shape for tensor in (*operation.inputs, *operation.outputs)]
    if len(shapes) != 3 or any(shape.rank is None for shape in shapes):
        return False
    left, right, result = (_samples(shape, prime) for shape in shapes)
    return left == right == 1 and result == 2 and shapes[0].rank != shapes[1].rank


def _samples(shape: tf.TensorShape, prime: int) -> int:
    """How many axes carry the samples."""
    return sum(size == prime for size in shape)


def _where(case: Case) -> str:
    tied = [output.where for output in case.outputs if output.kind != "plain"]
    return tied[0] if tied else "compute_loss"


def _words(operation: tf.Operation, prime: int) -> tuple[str, str]:
    left, right, result = (
        _shown(tensor.shape, prime) for tensor in (*operation.inputs, *operation.outputs)
    )
    return (
        f"{operation.type} lays a tensor of shape {left} against one of shape {right}, which gives "
        f"{result}: every sample against every other, where each was meant to meet itself.",
        f"Give both the same rank: {right if len(right) > len(left) else left} for both, for "
        "example by `keras.ops.reshape(y, keras.ops.shape(y_pred))`.",
    )


def _shown(shape: tf.TensorShape, prime: int) -> str:
    sizes = ["B" if size == prime else str(size) for size in shape]
    return f"[{', '.join(sizes)}]"
