"""All that is made of a weight before it meets samples, found in one trace and in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_pergrad.sites._layout import Layout, Layouts
from keras_pergrad.sites._site import NoSiteError, Site
from keras_pergrad.sites._trace import Trace, Use

_OTHERWISE = "the model computes something else with it for another number of samples"


@dataclass(frozen=True)
class Place:
    """What is known of a site from the trace at a prime number of samples.

    Attributes:
        layouts: of the operands; None where one bears no samples.
        layout: of the output.
        shapes: of the operands and, last, of the output, unknown where the samples are.
    """

    layouts: tuple[Layout | None, ...]
    layout: Layout
    shapes: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class Branch:
    """One use of a tensor that was made of a weight.

    Attributes:
        kind: the operation's.
        place: what is known of it, if samples are met there.
        made: what is made of each output, else; None where that was followed already.
    """

    kind: str
    place: Place | None
    made: tuple[Region | None, ...] = ()


@dataclass(frozen=True)
class Region:
    """All uses of a tensor, in the order in which they were traced."""

    branches: tuple[Branch, ...]

    def sites(self, trace: Trace, weight: Sequence[tf.Tensor], *, extra_from: int) -> list[Site]:
        """The sites in another trace of the same code, in which every use has to be the same.

        Args:
            trace: the other trace.
            weight: all readings of the weight in it.
            extra_from: the number of the operation from which on regularizers may use it besides.

        Raises:
            NoSiteError: the code did something else there.
        """
        uses = trace.uses_of_any(weight)
        count = len(self.branches)
        if len(uses) > count and trace.number(uses[count]) >= extra_from:
            uses = uses[:count]
        return self._match(trace, uses, tuple(weight))

    def _match(self, trace: Trace, uses: list[Use], weight: tuple[tf.Tensor, ...]) -> list[Site]:
        if [use.operation.type for use in uses] != [branch.kind for branch in self.branches]:
            raise NoSiteError(_OTHERWISE)
        found: list[Site] = []
        for branch, use in zip(self.branches, uses, strict=True):
            if branch.place is not None:
                found.append(_site(branch.place, use, weight))
            for region, output in zip(branch.made, use.operation.outputs, strict=False):
                if region is not None:
                    found += region._match(trace, trace.uses(output), weight)
        return found


def find_region(trace: Trace, layouts: Layouts, weight: tf.Tensor, loss: tf.Tensor) -> Region:
    """What is made of a weight, as far as the places where it meets samples.

    Args:
        trace: at a prime number of samples.
        layouts: of its tensors.
        weight: the weight.
        loss: what is differentiated.

    Raises:
        NoSiteError: a place where no rule could read the samples' gradients.
    """
    seen = {weight.ref()}
    region = _follow(trace, layouts, weight, seen)
    if loss.ref() in seen:
        raise NoSiteError("the loss has it past the samples, or after they were summed")
    return region


def _follow(trace: Trace, layouts: Layouts, tensor: tf.Tensor, seen: set) -> Region:
    branches = []
    for use in trace.uses(tensor):
        operation = use.operation
        if any(layouts.bears_samples(output) for output in operation.outputs):
            branches.append(Branch(operation.type, _place(layouts, use)))
            continue
        made: list[Region | None] = []
        for output in operation.outputs if operation.type != "StopGradient" else ():
            whole = output.dtype.is_integer or output.dtype.is_bool  # no gradient comes through
            new = output.ref() not in seen and not whole
            seen.add(output.ref())
            made.append(_follow(trace, layouts, output, seen) if new else None)
        branches.append(Branch(operation.type, None, tuple(made)))
    return Region(tuple(branches))


def _place(layouts: Layouts, use: Use) -> Place:
    operation = use.operation
    if len(operation.outputs) != 1:
        raise NoSiteError(f"{operation.type} at {operation.name!r} has several outputs")
    tensors = [*operation.inputs, operation.outputs[0]]
    found: list[Layout | None] = []
    for tensor in tensors:
        layout = layouts.of(tensor) if layouts.bears_samples(tensor) else None
        if layout is None and layouts.bears_samples(tensor):
            raise NoSiteError(f"which entries of {tensor.op.name!r} are a sample's is not certain")
        found.append(layout)
    output = found.pop()
    if output is None:
        raise NoSiteError(f"{operation.name!r} bears no samples")
    return Place(tuple(found), output, tuple(_shape(layouts, tensor) for tensor in tensors))


def _shape(layouts: Layouts, tensor: tf.Tensor) -> tuple[int | None, ...]:
    layout = layouts.of(tensor) if layouts.bears_samples(tensor) else None
    sizes = tensor.shape.as_list()
    return tuple(None if layout and k == layout.axis else size for k, size in enumerate(sizes))


def _site(place: Place, use: Use, weight: tuple[tf.Tensor, ...]) -> Site:
    """The site; its tensors are given the sizes that tracing with another batch has shown."""
    tensors = [*use.operation.inputs, use.operation.outputs[0]]
    for tensor, shape in zip(tensors, place.shapes, strict=True):
        try:
            tensor.set_shape(tensor.shape.merge_with(shape))
        except ValueError as error:
            raise NoSiteError(_OTHERWISE) from error
    return Site(use.operation, use.operand, place.layouts, place.layout, weight)
