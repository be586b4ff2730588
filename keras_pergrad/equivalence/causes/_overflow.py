"""Numbers beyond the largest of the dtype: Inf or NaN that is none in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import in_turn
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._loss_scaling import against_overflow
from keras_pergrad.equivalence.causes._precision import KIND
from keras_pergrad.equivalence.causes.instruments import Case, place_of
from keras_pergrad.runs import start

_SMALLER = (
    "Make what the layer is given smaller, as by a normalization before it, or give it "
    "dtype='float32'; a loss scale does not reach the forward pass."
)


def overflow(case: Case) -> Iterator[Cause]:
    """One cause where what is not finite in the model's dtype is finite in float64."""
    dtype = tf.as_dtype(case.report.tolerance.dtype)
    if dtype == tf.float64 or _is_finite(case):
        return
    limit = float(dtype.max)
    exact = _reached_in_float64(case)
    if exact is None:
        return
    begin = f"The largest number of {dtype.name} is {limit:g}. In float64 all is finite"
    for where, largest in exact.outputs:
        if largest > limit:
            because = f"{begin}, and the output of {where!r} reaches {largest:.3g}."
            yield Cause(KIND, where, because, _SMALLER)
            return
    times = (
        f", times the loss scale of {exact.scale:g}"
        if not math.isclose(exact.scale, 1, rel_tol=1e-3)
        else ""
    )
    because = (
        f"{begin}: predictions stay below that, and the largest entry of the batch gradient is "
        f"{exact.gradient:.3g}{times}. The backward pass overflows, there or on the way."
    )
    yield Cause(KIND, dtype.name, because, against_overflow(case.model))


@dataclass(frozen=True)
class _Exact:
    """What float64 reaches.

    Attributes:
        outputs: the largest of each layer that computes in the model's dtype, in their order.
        gradient: the largest entry of the batch gradient.
        scale: what the loss was multiplied by in the model's dtype.
    """

    outputs: list[tuple[str, float]]
    gradient: float
    scale: float


def _is_finite(case: Case) -> bool:
    own = case.own if case.alone else []
    return case.report.non_finite == 0 and _largest([*case.real, *case.batch, *own]) < float("inf")


def _reached_in_float64(case: Case) -> _Exact | None:
    """The same samples in float64; None where something is not finite there either."""
    with _keras.computing_in_float64(case.model):
        run = start(case.model, case.run.batch.doubled(), of="own", double=True)
        reached = [(each.layer, _largest(each.outputs)) for each in run.calls().walk()]
        loss, gradient = run.batch_gradient()
        alone = in_turn(run, tf.range(case.size)) if case.alone else ()
    scale = case.run.gradient_scale
    by = 1.0 if scale is None else float(scale) * case.size
    largest = _largest(gradient)
    others = [_largest(loss), _largest(alone), *(each for _, each in reached)]
    if max(largest, *others) == float("inf"):
        return None
    dtype = case.report.tolerance.dtype
    outputs = [(place_of(e), top) for e, top in reached if e.compute_dtype == dtype]
    return _Exact(outputs, largest, by)


def _largest(structure: Any) -> float:
    """The largest number, Inf if there is one or a NaN."""
    found = [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, tf.Tensor)]
    sizes = [_top(leaf) for leaf in found if leaf.dtype.is_floating]
    numbers = [float(each) for each in sizes]
    return float("inf") if any(map(math.isnan, numbers)) else max([0.0, *numbers])


def _top(leaf: tf.Tensor) -> tf.Tensor:
    """NaN if there is one: a maximum passes it over on some devices."""
    sizes = tf.abs(tf.cast(leaf, tf.float64))
    return tf.reduce_sum(sizes) * 0 + tf.reduce_max(sizes) if tf.size(sizes) else tf.zeros(())
