"""Shapes that meet and are stretched against each other without a word: `[B]` against `[B, 1]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import PrimeTrace, gist
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, place_of

KIND = "broadcast"
_ELEMENTWISE = (
    "Add AddV2 Sub Mul RealDiv Div DivNoNan SquaredDifference Maximum Minimum Pow Greater "
    "GreaterEqual Less LessEqual Equal NotEqual LogicalAnd LogicalOr SelectV2 Xlogy Xdivy"
).split()
_BY_RESHAPE = ", for example by `keras.ops.reshape(y, keras.ops.shape(y_pred))`."


def broadcast_in_model(case: Case) -> Iterator[Cause]:
    """One cause for every layer that mixes samples and in which two tensors are stretched."""
    if not case.mixing:
        return
    try:
        trace = case.trace
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError):
        return  # how the layer mixes is not known then; that it does, is
    for mixing in case.mixing:
        inside = [id(layer) for layer in _keras.layers_of(mixing.layer)]
        of_forward = trace.traced.operations[: trace.traced.forward]
        here = [each for each in of_forward if id(trace.layer_of(each)) in inside]
        if stretched := _stretched(here, trace):
            explains = case.difference.undo(layers=(mixing.layer,))
            case.blamed_layers.add(id(mixing.layer))
            because, remedy = _words(stretched, trace)
            yield Cause(KIND, place_of(mixing.layer), because, f"{remedy}.", explains)


def broadcast(case: Case) -> Iterator[Cause]:
    """One cause for every loss in which two tensors of one number a sample are stretched."""
    tied = {output.where: output for output in case.outputs if output.kind != "plain"}
    if not tied:
        return
    try:
        trace = case.trace
    except ValueError as error:
        yield from _only_this_size(case, next(iter(tied)), error)
        return
    places: dict[str, list[tf.Operation]] = {}
    for operation in _stretched(trace.traced.operations[trace.traced.forward :], trace):
        places.setdefault(_loss_of(operation, list(tied)), []).append(operation)
    for where, stretched in places.items():
        explains = case.undo_loss(tied[where])
        case.blamed.add(where)
        because, remedy = _words(stretched, trace)
        yield Cause(KIND, where, because, f"{remedy}{_BY_RESHAPE}", explains)


def _only_this_size(case: Case, where: str, error: ValueError) -> Iterator[Cause]:
    """Shapes that fit each other only because two sizes are equal by chance."""
    if re.search(r"Dimensions must be equal[^{]*|Incompatible shapes[^{]*", str(error)):
        explains = case.difference.undo(loss=True)
        case.blamed.add(where)
        because = (
            "It can be computed for this number of samples alone, as two tensors fit each other "
            f"only where that is the length of another axis: {gist(error)}"
        )
        remedy = "Give what has one number a sample a trailing axis, `[:, None]`."
        yield Cause(KIND, where, because, remedy, explains)


def _stretched(operations: Iterable[tf.Operation], trace: PrimeTrace) -> list[tf.Operation]:
    """Those that lay samples against samples.

    Only where their ranks differ: who lays samples against samples on purpose adds an axis to both.
    """
    elementwise = (each for each in operations if each.type in _ELEMENTWISE)
    return [each for each in elementwise if _is_stretched(each, trace.prime)]


def _is_stretched(operation: tf.Operation, prime: int) -> bool:
    shapes = [tensor.shape for tensor in (*operation.inputs, *operation.outputs)]
    if len(shapes) != 3 or any(shape.rank is None for shape in shapes):
        return False
    left, right, result = (_samples(shape, prime) for shape in shapes)
    return left == right == 1 and result == 2 and shapes[0].rank != shapes[1].rank


def _samples(shape: tf.TensorShape, prime: int) -> int:
    """How many axes carry the samples."""
    return sum(size == prime for size in shape)


def _loss_of(operation: tf.Operation, tied: list[str]) -> str:
    """The loss that makes an operation, by its scope; the first where none says so."""
    scopes = operation.name.split("/")
    named = (where for where in tied if where.rpartition(": ")[2] in scopes)
    return next(named, tied[0])


def _words(operations: list[tf.Operation], trace: PrimeTrace) -> tuple[str, str]:
    """What is laid against what, each pair of shapes once; and the ranks that they should have."""
    laid: dict[tuple[str, str], str] = {}
    for operation in operations:
        left, right, result = (
            _shown(tensor.shape, trace.prime) for tensor in (*operation.inputs, *operation.outputs)
        )
        text = f"{operation.type} lays {left} against {right}, which gives {result}"
        laid.setdefault((left, right), text)
    ranks = " or ".join(dict.fromkeys(max(pair, key=len) for pair in laid))
    return (
        f"{'; '.join(laid.values())}: every sample against every other, where each was meant to "
        "meet itself.",
        f"Give both the same rank, {ranks}",
    )


def _shown(shape: tf.TensorShape, prime: int) -> str:
    sizes = ["B" if size == prime else str(size) for size in shape]
    return f"[{', '.join(sizes)}]"
