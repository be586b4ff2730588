"""Whether a compiled function is one convolution, and nothing else."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def inner_convolution(function: Any, *, lines: bool) -> Any:
    """The `Conv2D` that a function is of its first two arguments, image and filter; or None.

    Its first output is the result. For the gradient TensorFlow has it give others besides.

    Args:
        function: its definition, or None.
        lines: of one dimension. Then both are given another axis, of one entry, before the one that
            they have: axis 1 of the image and axis 0 of the filter, and the result loses axis 1.
    """
    if function is None:
        return None
    nodes = {node.name: node for node in function.node_def}
    found = [node for node in nodes.values() if node.op == "Conv2D"]
    if len(found) != 1:
        return None
    image, filters = found[0].input[:2]
    result = function.ret[function.signature.output_arg[0].name]
    axes = (1, 0, 1) if lines else (None, None, None)
    ways = (
        _way(nodes, image, "ExpandDims"),
        _way(nodes, filters, "ExpandDims"),
        _way(nodes, result, "Squeeze"),
    )
    ends = [*(each.name for each in function.signature.input_arg[:2]), found[0].name]
    return found[0] if list(ways) == list(zip(ends, axes, strict=True)) else None


def _way(nodes: dict[str, Any], tensor: str, kind: str) -> tuple[str, int | None]:
    """Back through identities and one operation of a kind: what is there, and that one's axis."""
    axis = None
    while (node := nodes.get(tensor.partition(":")[0])) is not None:
        if node.op == kind and axis is None:
            axis = _axis(nodes, node)
        elif node.op != "Identity":
            break
        tensor = node.input[0]
    return tensor.partition(":")[0], axis


def _axis(nodes: dict[str, Any], node: Any) -> int:
    """The axis of four that is added or taken away; -1 if it is not known."""
    if node.op == "Squeeze":
        axes = list(node.attr["squeeze_dims"].list.i)
    else:
        constant = nodes.get(node.input[1].partition(":")[0])
        if constant is None or constant.op != "Const":
            return -1
        axes = tf.make_ndarray(constant.attr["value"].tensor).reshape(-1)
    return int(axes[0]) % 4 if len(axes) == 1 else -1
