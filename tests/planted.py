"""Engines with a planted fault, to see whether a check notices."""

import contextlib
import dataclasses
from collections.abc import Callable
from unittest import mock

import keras
import tensorflow as tf

from keras_pergrad.engines import Engine, get_engine
from keras_pergrad.gradients import Block, Blocks, Mapped, Materialized
from keras_pergrad.runs import Run

Change = Callable[[list[tf.Tensor], tf.Tensor], list[tf.Tensor]]


class Planted(Engine):
    """Another engine whose gradients pass through `change(gradients, indices)`.

    `gradients` are one tensor [b, *weight.shape] a variable, `indices` the samples, [b].
    """

    name = "planted"

    def __init__(self, change: Change, engine: str = "vectorized"):
        self._change = change
        self._engine = get_engine(engine)
        self.definition = self._engine.definition

    def blocks(self, run, memory_budget):
        return Mapped(self._engine.blocks(run, memory_budget), self._planted)

    def _planted(self, block: Block) -> Block:
        gradients = [factor.materialize() for factor in block.factors]
        changed = self._change(gradients, block.indices)
        return Block(block.indices, lambda: block.losses, [Materialized(each) for each in changed])


class Swapped(Engine):
    """Another engine that gives samples the gradients of others: the mean stays right.

    Every sample that of its mirror image in the batch, or the first two each other's.
    """

    name = "swapped"

    def __init__(self, engine: str = "vectorized", *, only_two: bool = False):
        self._engine = get_engine(engine)
        self._only_two = only_two
        self.definition = self._engine.definition

    def blocks(self, run, memory_budget):
        return _Swapped(self._engine.blocks(run, memory_budget), self._only_two)


class _Swapped(Blocks):
    def __init__(self, blocks: Blocks, only_two: bool):
        self._blocks = blocks
        self._only_two = only_two
        self.size = blocks.size

    def at(self, indices):
        others = self.size - 1 - indices
        if self._only_two:
            others = tf.where(indices < 2, 1 - indices, indices)
        other = self._blocks.at(others)
        return Block(indices, lambda: other.losses, other.factors)

    def total(self, function):
        return self._blocks.total(lambda block: function(self.at(block.indices)))

    def each(self, function):
        return self._blocks.each(lambda block: function(self.at(block.indices)))


class Stale(Engine):
    """Another engine, at weights that are one percent old."""

    name = "stale"

    def __init__(self, engine: str = "vectorized"):
        self._engine = get_engine(engine)
        self.definition = self._engine.definition

    def blocks(self, run, memory_budget):
        weights = set(map(id, run.variables))
        state = [(v, x * 1.01 if id(v) in weights else x) for v, x in run.state]
        return self._engine.blocks(dataclasses.replace(run, state=state), memory_budget)


class FirstUse(Engine):
    """Another engine that differentiates only the first use of a weight that is used again."""

    name = "first_use"

    def __init__(self, engine: str = "vectorized"):
        self._engine = get_engine(engine)
        self.definition = self._engine.definition

    def blocks(self, run, memory_budget):
        known = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
        return self._engine.blocks(_FirstUse(**known), memory_budget)


class _FirstUse(Run):
    def sample(self, index, *, unroll):
        with _answering_once(self.variables):
            return super().sample(index, unroll=unroll)

    def row(self, index, *, unroll):
        with _answering_once(self.variables):
            return super().row(index, unroll=unroll)


@contextlib.contextmanager
def _answering_once(variables):
    """Makes scopes answer a constant from the second time on that a weight is read in one."""
    weights, seen = set(map(id, variables)), set()
    answer = keras.StatelessScope.get_current_value

    def value_of(scope, variable):
        value, reading = answer(scope, variable), (id(scope), id(variable))
        again = reading in seen
        seen.add(reading)
        return tf.stop_gradient(value) if again and id(variable) in weights else value

    with mock.patch.object(keras.StatelessScope, "get_current_value", value_of):
        yield


class WrongDivisor(Engine):
    """Another engine that divides each sample by the batch's mask: its mean stays right."""

    name = "wrong_divisor"

    def __init__(self, engine: str = "vectorized"):
        self._engine = get_engine(engine)
        self.definition = self._engine.definition

    def blocks(self, run, memory_budget):
        return self._engine.blocks(run.contributions(), memory_budget)


def scaled(factor: float, variable: int = 0) -> Change:
    """One variable's gradients times a factor."""

    def change(gradients, indices):
        return [g * factor if k == variable else g for k, g in enumerate(gradients)]

    return change


def scaled_everywhere(factor: float) -> Change:
    """All gradients times a factor."""
    return lambda gradients, indices: [g * factor for g in gradients]


def dropped(variable: int) -> Change:
    """A variable without its gradient."""
    return scaled(0.0, variable)


def zero_sum_noise(gradients, indices):
    """Adds +1, -1, +1, … to the samples: the mean of an even batch stays right."""
    sign = tf.cast(1 - 2 * (indices % 2), gradients[0].dtype)
    return [g + tf.reshape(sign, [-1] + [1] * (len(g.shape) - 1)) for g in gradients]


def one_sample_dropped(gradients, indices):
    """Sample 0 contributes nothing."""
    kept = tf.cast(indices != 0, gradients[0].dtype)
    return [g * tf.reshape(kept, [-1] + [1] * (len(g.shape) - 1)) for g in gradients]


def one_sample_doubled(gradients, indices):
    """Sample 0 counts twice."""
    times = 1 + tf.cast(indices == 0, gradients[0].dtype)
    return [g * tf.reshape(times, [-1] + [1] * (len(g.shape) - 1)) for g in gradients]


def normalized(gradients, indices):
    """Every sample's gradient of each variable has norm one."""
    axes = [list(range(1, len(g.shape))) for g in gradients]
    norms = [
        tf.sqrt(tf.reduce_sum(g * g, axis, keepdims=True))
        for g, axis in zip(gradients, axes, strict=True)
    ]
    return [tf.math.divide_no_nan(g, n) for g, n in zip(gradients, norms, strict=True)]


def in_half_precision(gradients, indices):
    """Rounded to float16 on the way."""
    return [tf.cast(tf.cast(g, tf.float16), g.dtype) for g in gradients]


def last_scaled(factor: float) -> Change:
    """The last variable's gradients times a factor."""
    return lambda gradients, indices: [*gradients[:-1], gradients[-1] * factor]


def transposed_kernel(gradients, indices):
    """The first square kernel transposed."""
    out, done = [], False
    for g in gradients:
        square = len(g.shape) == 3 and g.shape[1] == g.shape[2]
        out.append(tf.transpose(g, [0, 2, 1]) if square and not done else g)
        done = done or square
    return out


def sign_flipped(gradients, indices):
    """Every gradient uphill."""
    return [-g for g in gradients]
