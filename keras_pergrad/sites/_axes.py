"""What operations do with the axis that the samples are on.

Each rule answers how the samples lie on an axis of the output, `(outer, inner)`, or None where the
operation mixes or moves them, or is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras

Order = tuple[int, int]


class Source(NamedTuple):
    """An operand that bears samples: its number, itself, and its layout."""

    number: int
    tensor: tf.Tensor
    layout: Any


Rule = Callable[[tf.Tensor, int, Sequence[Source]], Order | None]

# The output has the samples on the axis, counted from the end, that each operand has them on.
_ALIKE = """
    Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh AvgPool AvgPool3D BiasAdd BroadcastTo
    Cast Ceil CheckNumerics ClipByValue ConcatV2 Conv2D Conv2DBackpropInput Conv3D
    Conv3DBackpropInputV2 Cos Cosh DepthToSpace DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropInput Digamma Div DivNoNan Elu EnsureShape Equal Erf Erfc Erfinv
    Exp Expm1 ExtractImagePatches Floor FloorDiv FloorMod Greater GreaterEqual Identity IdentityN
    Inv IsFinite IsInf IsNan LeakyRelu Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot
    LogicalOr MaxPool MaxPool3D Maximum Minimum MirrorPad Mod Mul MulNoNan Neg NotEqual OnesLike Pad
    PadV2 Pow PreventGradient RealDiv Reciprocal Relu Relu6 ResizeBilinear ResizeNearestNeighbor
    Rint Round Rsqrt Select SelectV2 Selu Sigmoid Sign Sin Sinh Slice Softplus Softsign
    SpaceToDepth Split SplitV Sqrt Square SquaredDifference StopGradient Sub Tan Tanh Tile
    TruncateDiv Xdivy Xlog1py Xlogy ZerosLike
"""
# The axis may have another number; there is one that has as many entries.
_SHIFTED = """
    All Any ArgMax ArgMin ExpandDims Max Mean Min OneHot Pack Prod SoftmaxCrossEntropyWithLogits
    SparseSoftmaxCrossEntropyWithLogits Squeeze Sum Unpack
"""


def kept_by(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """How the samples lie on an axis of an operation's output."""
    rule = _RULES.get(tensor.op.type)
    return None if rule is None else rule(tensor, axis, sources)


def is_known(operation: tf.Operation) -> bool:
    """Whether there is a rule for what the operation does."""
    return operation.type in _RULES


def _alike(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    from_end = tensor.shape.rank - axis
    return _on(tensor, axis, sources, [s.tensor.shape.rank - from_end for s in sources])


def _shifted(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    return _on(tensor, axis, sources, [source.layout.axis for source in sources])


def _on(
    tensor: tf.Tensor, axis: int, sources: Sequence[Source], axes: Sequence[int | None]
) -> Order | None:
    """The common order, if each source has the samples on the axis given, as many entries long."""
    orders = {(source.layout.outer, source.layout.inner) for source in sources}
    for source, there in zip(sources, axes, strict=True):
        if there != source.layout.axis or source.tensor.shape[there] != tensor.shape[axis]:
            return None
    return orders.pop() if len(orders) == 1 else None


def _reshaped(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    source, layout = sources[0].tensor, sources[0].layout
    slower = math.prod(source.shape[: layout.axis]) * layout.outer
    faster = layout.inner * math.prod(source.shape[layout.axis + 1 :])
    outside, inside = math.prod(tensor.shape[:axis]), math.prod(tensor.shape[axis + 1 :])
    if slower % outside or faster % inside:
        return None
    return slower // outside, faster // inside


def _transposed(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    order = tf.get_static_value(tensor.op.inputs[1])
    return None if order is None else _on(tensor, axis, sources, [int(order[axis])])


def _spaced(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """Blocks of space are laid before the samples, on their axis."""
    layout = sources[0].layout
    if layout.axis or layout.inner != 1 or axis:
        return None
    return tensor.shape[0] * layout.outer // sources[0].tensor.shape[0], 1


def _normalized(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """Softmax, along the last axis."""
    return None if axis == tensor.shape.rank - 1 else _alike(tensor, axis, sources)


def _along(operand: int) -> Rule:
    """Along the axes that an operand names: not those of the samples."""

    def rule(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
        named = tf.get_static_value(tensor.op.inputs[operand])
        if named is None:
            return None
        moved = {int(k) % tensor.shape.rank for k in (named.reshape(-1).tolist())}
        return None if axis in moved else _alike(tensor, axis, sources)

    return rule


def _sliced(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    strides = tf.get_static_value(tensor.op.inputs[3])
    if strides is None:
        return None
    plain = not any(tensor.op.get_attr(name) for name in ("ellipsis_mask", "new_axis_mask"))
    there = sources[0].layout.axis
    relevant = [strides[there]] if plain and there < len(strides) else [] if plain else strides
    if len(sources) > 1 or any(stride < 0 for stride in relevant):
        return None
    return _shifted(tensor, axis, sources)


def _product(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """Rows come from the left, columns from the right, the other axes from both."""
    names = ("transpose_a", "transpose_b") if tensor.op.type == "MatMul" else ("adj_x", "adj_y")
    from_end, axes = tensor.shape.rank - axis, []
    for source in sources:
        rank, turned = source.tensor.shape.rank, tensor.op.get_attr(names[source.number])
        own = 2 if source.number == 0 else 1  # its own axis in the output, from the end
        if from_end > 2:
            axes.append(rank - from_end)
        else:
            axes.append(None if from_end != own else rank - (3 - own if turned else own))
    return _on(tensor, axis, sources, axes)


def _einsum(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    equation = tensor.op.get_attr("equation").decode().replace(" ", "")
    operands, _, output = equation.partition("->")
    if "." in equation or not output:
        return None
    labels = operands.split(",")
    return _on(tensor, axis, sources, [labels[s.number].find(output[axis]) for s in sources])


def _gathered(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """Rows of samples looked up at the same places, or rows of a table at the samples' ids."""
    along, ids = tf.get_static_value(tensor.op.inputs[2]), tensor.op.inputs[1]
    if along is None or tensor.op.get_attr("batch_dims") or len(sources) > 1:
        return None
    source, along = sources[0], int(along) % tensor.op.inputs[0].shape.rank
    there = source.layout.axis
    if source.number == 1:
        moved = there + along
    elif there == along:
        return None
    else:
        moved = there + (ids.shape.rank - 1 if there > along else 0)
    return _on(tensor, axis, sources, [there]) if moved == axis else None


def _called(tensor: tf.Tensor, axis: int, sources: Sequence[Source]) -> Order | None:
    """A compiled function of operations that keep the samples apart: Keras' grouped convolution."""
    function = _keras.called_function(tensor.op)
    nodes = {node.op for node in function.node_def} if function else set()
    apart = {*_ALIKE.split(), "Const", "ExpandDims", "NoOp", "Squeeze"}
    return _alike(tensor, axis, sources) if nodes and nodes <= apart else None


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALIKE.split(), _alike),
    **dict.fromkeys(_SHIFTED.split(), _shifted),
    "BatchMatMulV2": _product,
    "BatchToSpaceND": _spaced,
    "Cumprod": _along(1),
    "Cumsum": _along(1),
    "Einsum": _einsum,
    "GatherV2": _gathered,
    "LogSoftmax": _normalized,
    "MatMul": _product,
    "PartitionedCall": _called,
    "Reshape": _reshaped,
    "ReverseV2": _along(1),
    "Roll": _along(2),
    "Softmax": _normalized,
    "SpaceToBatchND": _spaced,
    "StatefulPartitionedCall": _called,
    "StridedSlice": _sliced,
    "Transpose": _transposed,
}
