"""Where samples interact: read off a trace at a prime number of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tensorflow as tf

from keras_pergrad.sites._layout import Layouts
from keras_pergrad.sites._trace import Trace


def interactions(
    trace: Trace,
    layouts: Layouts,
    weights: list[tf.Tensor],
    touched: set,
    forward: Sequence[tf.Operation],
) -> Iterator[tf.Operation]:
    """The operations in which samples meet, or are not certain not to, in their order.

    That is where a tensor has lost the samples' axis and flows back into one that bears it, as the
    batch's mean in BatchNormalization; and where an operation is not known to keep samples apart
    and in their order. In the loss only what depends on weights counts: the denominator of a mask
    is made of all samples, and no interaction. What follows from an operation of the second kind
    is not named again.

    Args:
        trace: at a prime number of samples.
        layouts: of its tensors.
        weights: the weights in it.
        touched: references of all tensors that depend on the data.
        forward: the operations of the forward pass.
    """
    weighted = trace.depending_on(weights)
    of_forward = {id(operation) for operation in forward}
    for operation in trace.operations:
        counts = touched if id(operation) in of_forward else touched & weighted
        if any(_meets(layouts, output, counts) for output in operation.outputs):
            yield operation


def _meets(layouts: Layouts, output: tf.Tensor, counts: set) -> bool:
    if not output.dtype.is_floating or not layouts.bears_samples(output):
        return False
    inputs = output.op.inputs
    if any(_is_mixed(layouts, tensor, counts) for tensor in inputs):
        return True
    followed = [t for t in inputs if t.dtype.is_floating and t.ref() in counts]
    known = all(layouts.of(t) is not None for t in followed if layouts.bears_samples(t))
    return known and output.ref() in counts and layouts.of(output) is None


def _is_mixed(layouts: Layouts, tensor: tf.Tensor, counts: set) -> bool:
    real = tensor.dtype.is_floating and tensor.ref() in counts
    return real and not layouts.bears_samples(tensor)
