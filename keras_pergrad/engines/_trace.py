"""What one traced sample shows, before anything is run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import PerGradError, UnsupportedError
from keras_pergrad.runs import Run

_TASK = {"vectorized": "stack", "jacobian": "stack", "loop": "run"}
_WAY_OUT = {
    "vectorized": (
        "Use engine='loop', which stacks nothing, or engine='jacobian', which runs the batch as "
        "it is."
    ),
    "jacobian": "Use engine='loop', which stacks nothing.",
    "loop": "Use engine='jacobian', which runs the batch as it is.",
}

Body = Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]]

_PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")

# Operations that draw. A replayed draw is a tensor, so that none of these is left in a sample's
# graph unless it went past the recording: raw operations, shuffles, candidate samplers.
_DRAWING = re.compile(
    r"(Stateless|Stateful)?(Parameterized)?(Random(?!GammaGrad|Get|GetKey)|TruncatedNormal"
    r"|Multinomial|StandardNormal|Uniform(FullInt|Int)?(V2)?$)|StatelessShuffle|.*CandidateSampler"
    r"|Fractional(Max|Avg)Pool$|.*SampleDistortedBoundingBox|NonDeterministicInts"
)
_WRITING = re.compile(
    r"Assign\w*VariableOp|Resource(Scatter|StridedSliceAssign|Apply)|RngReadAndSkip|RngSkip"
)


def trace(body: Body, engine: str) -> tf.Graph:
    """The graph of `body` for one sample, whose index is its first input."""
    index = tf.TensorSpec([], tf.int32, name="sample")
    with refusing(engine):
        return _keras.compiled(body).get_concrete_function(index).graph


@contextlib.contextmanager
def refusing(engine: str, *, running: bool = False) -> Iterator[None]:
    """Turns what TensorFlow says of a model that it cannot trace or stack into our words.

    Args:
        engine: the engine that could not.
        running: whether the graph is run, where only an error of a stacked operation is meant.

    Raises:
        UnsupportedError: names the engines that may.
        PerGradError: none can.
    """
    try:
        yield
    except PerGradError:
        raise
    except (
        ValueError,
        TypeError,
        AttributeError,
        NotImplementedError,
        tf.errors.OpError,
    ) as error:
        if running and "pfor" not in str(error):
            raise
        if "singleton tf.Variable" in str(error):
            raise PerGradError(
                "The model makes a new weight each time it is called, so that nothing trains it. "
                "Make layers and weights in `__init__` or `build`. "
                f"Received: engine={engine!r} and a weight made in `call`.",
                causes=("unconnected",),
            ) from error
        raise UnsupportedError(
            f"engine={engine!r} cannot {_TASK.get(engine, 'stack')} the samples of this model: "
            f"{gist(error)} {_WAY_OUT.get(engine, _WAY_OUT['vectorized'])} "
            f"Received: engine={engine!r}."
        ) from error


def gist(error: Exception) -> str:
    """The first two lines of a message, without the colours that Keras adds."""
    lines = [line.strip() for line in re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()]
    return " ".join([line for line in lines if line][:2])


def expect_no_python(graph: tf.Graph, engine: str) -> None:
    """Refuses Python code in the graph, which cannot be stacked.

    Raises:
        UnsupportedError: names the layer.
    """
    for operation in graph.get_operations():
        if operation.type in _PYTHON:
            raise UnsupportedError(
                f"Python code in the layer {operation.name.rpartition('/')[0]!r} "
                f"({operation.type}) cannot be vectorized over samples. Use engine='loop'. "
                f"Received: engine={engine!r}."
            )


def expect_weights_seen(graph: tf.Graph, run: Run) -> None:
    """Refuses a sample's graph that reads a weight where no gradient can be taken.

    Raises:
        UnsupportedError: names the weight.
    """
    for variable in _keras.variables_read_past(graph, run.variables):
        raise UnsupportedError(
            f"The weight {variable.path!r} is read past Keras (TFSMLayer, `weight._value`), so "
            "that no per-sample gradient reaches it. Read the weight itself, or freeze its layer. "
            f"Received: model={run.model.name!r}.",
            causes=("unconnected",),
        )


def expect_no_side_effects(graph: tf.Graph) -> None:
    """Refuses a sample's graph that draws noise of its own, or writes what nobody puts back.

    Raises:
        UnsupportedError: names the operation and its place.
    """
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        if _DRAWING.match(node.op):
            raise UnsupportedError(
                "A sample would draw other noise alone than in the batch: this operation's noise "
                "cannot be recorded and replayed. Draw with keras.random. "
                f"Received: {node.op} at {node.name!r}.",
                causes=("randomness",),
            )
        if _WRITING.match(node.op):
            raise UnsupportedError(
                "A forward pass writes a tf.Variable (or advances a tf.random.Generator) that "
                "Keras does not track, once more for every sample. Make it with "
                "`self.add_weight(trainable=False)`, or draw with keras.random. "
                f"Received: {node.op} at {node.name!r}.",
                causes=("state",),
            )


def note_ignored_samples(run: Run, graph: tf.Graph) -> None:
    """Remarks on a loss that is the same whatever the sample."""
    remark = "The loss does not depend on the samples: all gradients are the same."
    reached = _keras.depending_on(graph.inputs[:1], graph.get_operations())
    ignored = graph.outputs[0].ref() not in reached
    if ignored and remark not in run.remarks:
        run.remarks.append(remark)
