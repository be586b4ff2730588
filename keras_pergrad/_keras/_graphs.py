"""Traced graphs: made, and read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager.context import anonymous_name as anonymous_name
from tensorflow.python.framework.tensor_util import constant_value_as_shape
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

_PASSING = ("Identity", "Reshape", "Transpose", "Squeeze", "ExpandDims")
_SUMMING = (
    *("MatMul", "BatchMatMulV2", "Einsum", "Sum", "BiasAddGrad", "UnsortedSegmentSum"),
    *("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter"),
)


def compiled(function: Callable, *, each_shape: bool = False) -> Any:
    """A `tf.function` that is meant to be traced once and thrown away.

    TensorFlow counts traces by the place in the source and would warn of "frequent retracing".

    Args:
        function: what is traced.
        each_shape: whether it is traced for each shape of its arguments, so that a call computes
            the same whatever was called before; else for all shapes from the second one on.
    """
    result = tf.function(function, reduce_retracing=not each_shape, autograph=False)
    result._omit_frequent_tracing_warning = True
    return result


def traced_once(function: Callable) -> Callable:
    """The function itself or, in a graph, one that several calls of it trace once."""
    return function if tf.executing_eagerly() else compiled(function)


def apart_if(due: tf.Tensor, action: Callable[[], Any], *, optimized: bool = False) -> None:
    """Does what `action` does, if it is due, in one operation of the graph.

    TensorFlow rewrites a graph as a whole, and one with a loop in it otherwise than one without; so
    this one is rewritten by itself.

    Args:
        due: a scalar bool.
        action: what is traced.
        optimized: whether its own graph is rewritten; not worth it for what is done once.
    """
    if tf.executing_eagerly():
        if due:
            action()
        return

    def branch() -> Any:
        done = tf.constant(True)
        return tf.cond(due, lambda: _and_true(action), lambda: done)

    function = tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})
    function._omit_frequent_tracing_warning = True
    with contextlib.nullcontext() if optimized else run_as_traced():
        function()


def _and_true(action: Callable[[], Any]) -> tf.Tensor:
    action()
    return tf.constant(True)


@contextmanager
def run_as_traced() -> Iterator[None]:
    """Functions that are called meanwhile run as they were traced, by TensorFlow's own settings."""
    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def may_be_read(gradient: tf.Tensor) -> bool:
    """Whether one more reader of a weight's gradient leaves the update as it is, bit by bit.

    TensorFlow regroups products and sums with a single reader, `(a b) η`; not what is summed over
    samples by a contraction or a reduction.
    """
    operation = gradient.op
    while operation.type in _PASSING:
        operation = operation.inputs[0].op
    return operation.type in _SUMMING


def under_xla() -> bool:
    """Whether XLA compiles what is being traced, which knows every size when it does."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def static_shape(shape: tf.Tensor) -> list[int | None]:
    """What tracing knows of the shape that a tensor holds."""
    known = tf.get_static_value(shape)
    if known is not None:
        return [int(size) for size in known]
    sizes = constant_value_as_shape(shape).as_list()
    if shape.op.type == "Pack":
        entries = [_static_size(entry) for entry in shape.op.inputs]
        sizes = [a if a is not None else b for a, b in zip(sizes, entries, strict=True)]
    return sizes


def _static_size(size: tf.Tensor) -> int | None:
    """One size of a shape: a constant, or an entry `tf.shape(x)[k]` of a known one."""
    known = tf.get_static_value(size)
    if known is not None:
        return int(known)
    if size.op.type != "StridedSlice":
        return None
    source, begin = size.op.inputs[0], tf.get_static_value(size.op.inputs[1])
    return None if begin is None else constant_value_as_shape(source).as_list()[int(begin[0])]


def depending_on(sources: Iterable[tf.Tensor], operations: Iterable[tf.Operation]) -> set[Any]:
    """References of some tensors, and of all that operations, in their order, make of them."""
    reached = {source.ref() for source in sources}
    for operation in operations:
        if any(tensor.ref() in reached for tensor in operation.inputs):
            reached.update(tensor.ref() for tensor in operation.outputs)
    return reached


def called_function(operation: tf.Operation) -> Any:
    """The definition of the function that an operation calls; None where it cannot be seen."""
    graph, name = operation.graph, operation.get_attr("f").name
    while graph is not None and graph._get_function(name) is None:
        graph = getattr(graph, "outer_graph", None)
    return None if graph is None else graph._get_function(name).cached_definition


def variables_read_past(graph: Any, variables: list[keras.Variable]) -> list[keras.Variable]:
    """The variables that a traced graph reads by their TensorFlow handle, past any Keras scope."""
    sources = {id(_outermost(tensor, graph)) for tensor in graph.external_captures}
    return [v for v in variables if id(getattr(v._value, "handle", None)) in sources]


def readings(
    operations: Sequence[tf.Operation], variables: list[keras.Variable]
) -> list[list[tf.Tensor]]:
    """Every tensor that a traced run has read each variable into, in the order of the trace.

    In a replica, those of its own copy.
    """
    found: dict[int, list[tf.Tensor]] = {}
    for operation in operations:
        if operation.type == "ReadVariableOp":
            source, graph = operation.inputs[0], operation.graph
            source = next((out for out, inner in graph.captures if inner is source), source)
            source = _outermost(source, graph)
            found.setdefault(id(source), []).append(operation.outputs[0])
    return [found.get(id(getattr(v._value, "handle", None)), []) for v in variables]


def _outermost(tensor: Any, graph: Any) -> Any:
    """What a captured tensor was before any surrounding graph captured it."""
    outer = graph.outer_graph
    while outer is not None and hasattr(outer, "captures"):
        tensor = next((outside for outside, inside in outer.captures if inside is tensor), tensor)
        outer = getattr(outer, "outer_graph", None)
    return tensor


def replica_id() -> int:
    """Which replica is being traced; the public property is a tensor."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    return int(context._replica_id_in_sync_group)
