"""Any operation that treats samples apart: its own derivative, sample by sample, all at once."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from keras_pergrad._stacking import stacked_map
from keras_pergrad.gradients import Factor, Materialized
from keras_pergrad.sites._site import NoSiteError, Site

# They run a graph of their own, which cannot be called again by its attributes.
_INSIDE_OUT = frozenset(
    "Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile "
    "While".split()
)


def each(site: Site, gradient: tf.Tensor) -> Factor:
    """Runs the operation again on each sample alone, and differentiates that.

    Raises:
        NoSiteError: the operation cannot be made again, or knows the number of samples.
    """
    if site.operation.type in _INSIDE_OUT or not hasattr(tf.raw_ops, site.operation.type):
        raise NoSiteError(f"{site.place} has no rule")
    samples = [
        None if layout is None else layout.by_sample(tensor)
        for tensor, layout in zip(site.operation.inputs, site.layouts, strict=True)
    ]
    if not any(each is not None for each in samples):
        raise NoSiteError(f"{site.place} meets no samples")
    upstream = site.layout.by_sample(gradient)

    def derivative(index: tf.Tensor) -> tf.Tensor:
        inputs = list(site.operation.inputs)
        for k, value in enumerate(samples):
            if value is not None:
                inputs[k] = site.layouts[k].of_one(tf.gather(value, index))  # type: ignore[union-attr]
        # A tensor of its own: the other operand may be the same weight.
        inputs[site.operand] = tf.identity(inputs[site.operand])
        one = site.layout.of_one(tf.gather(upstream, index))
        with tf.GradientTape() as tape:
            tape.watch(inputs[site.operand])
            output = _again(site.operation, inputs)
        found = tape.gradient(output, inputs[site.operand], output_gradients=one)
        return tf.ensure_shape(tf.convert_to_tensor(found), site.met.shape)

    try:
        rows = stacked_map(derivative, tf.range(tf.shape(upstream)[0]))
    except (ValueError, TypeError, LookupError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NoSiteError(f"{site.place}: {reason}") from error
    return Materialized(tf.ensure_shape(rows, [None, *site.met.shape]))


def _again(operation: tf.Operation, inputs: list[tf.Tensor]) -> tf.Tensor:
    """The same operation on other inputs."""
    make = getattr(tf.raw_ops, operation.type)
    taken = inspect.signature(make).parameters
    arguments: dict[str, Any] = {}
    rest = list(inputs)
    for argument in operation.op_def.input_arg:
        count = operation.get_attr(argument.number_attr) if argument.number_attr else 0
        arguments[argument.name] = [rest.pop(0) for _ in range(count)] if count else rest.pop(0)
    for attribute in operation.op_def.attr:
        if attribute.name in taken and attribute.name not in arguments:
            value = operation.get_attr(attribute.name)
            arguments[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return make(**arguments)
