"""Layers that, called twice, give two results: by noise, or by what they keep in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_pergrad.runs import Call, Hidden, Run, hidden_in, leaves, renewed


@dataclass(frozen=True)
class Unsteady:
    """A layer whose call cannot be repeated.

    Attributes:
        call: the call.
        keeps: the places in Python that make it another, if putting those back makes it the same.
    """

    call: Call
    keeps: list[Hidden]

    @property
    def state(self) -> list[Hidden]:
        """Those that are no generator of random numbers."""
        return [each for each in self.keeps if not each.draws]


def find_unsteady(run: Run, call: Call) -> list[Unsteady]:
    """The innermost calls that, made twice, give two results. Leaves what they write untouched."""
    hidden = hidden_in(run.model)
    return [Unsteady(each, _kept(run, each, hidden)) for each in _innermost(run, call, hidden)]


def _innermost(run: Run, call: Call, hidden: list[Hidden]) -> list[Call]:
    if not _differs_again(run, call, hidden):
        return []
    found = [each for inner in call.inner for each in _innermost(run, inner, hidden)]
    return found or [call]


def _differs_again(run: Run, call: Call, hidden: list[Hidden]) -> bool:
    """Whether a call, made once more, gives another result than it gave."""
    with renewed(run.model, hidden):
        return _are_two(call.outputs, call.again(run, call.arguments))


def _kept(run: Run, call: Call, hidden: list[Hidden]) -> list[Hidden]:
    """The places without which the call would be the same twice; none where it is noise."""
    if _differs(run, call, each=hidden):
        return []
    alone = [
        place
        for place in hidden
        if _differs(run, call, once=[place], each=[e for e in hidden if e is not place])
    ]
    return alone or hidden


def _differs(
    run: Run, call: Call, *, once: Sequence[Hidden] = (), each: Sequence[Hidden] = ()
) -> bool:
    """Whether a call, made twice, gives two results.

    Args:
        run, call: the call.
        once: places put back after both.
        each: places put back after each of them.
    """
    with renewed(run.model, once):
        results = []
        for _ in range(2):
            with renewed(run.model, each):
                results.append(call.again(run, call.arguments))
    return _are_two(*results)


def _are_two(one: Any, other: Any) -> bool:
    """Whether they differ; a NaN is like another."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return any(_is_other(a, b) for a, b in pairs if isinstance(a, tf.Tensor))


def _is_other(one: tf.Tensor, other: tf.Tensor) -> bool:
    if one.shape != other.shape:
        return True
    different = one != other
    if one.dtype.is_floating:
        different &= ~(tf.math.is_nan(one) & tf.math.is_nan(other))
    return bool(tf.reduce_any(different))
