"""On which samples of a batch its difference is looked into."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_pergrad.equivalence._once import Request
from keras_pergrad.runs import Call

PRIMES = (7, 11, 13, 5, 3)  # each costs a run of every sample
MORE = (64, 1024)  # where fewer do not show the difference


def counts(request: Request) -> Iterator[int]:
    """How many samples to look into, and how many more if those do not show the difference.

    First as many as no other axis has entries, so that shapes tell where the samples are.
    """
    whole = int(request.batch.size)
    few = (p for p in PRIMES if p <= whole and _is_free(p, request))
    last = next(few, min(whole, PRIMES[0]))
    yield last
    for more in MORE:
        if last == whole:
            return
        last = min(whole, more)
        yield last


def _is_free(count: int, request: Request) -> bool:
    """Whether no axis of the data or of a weight has a multiple of `count` entries."""
    shapes = [leaf.shape[1:] for leaf in request.batch.leaves]
    shapes += [variable.shape for variable in request.model.variables]
    return all(size is None or size % count for shape in shapes for size in shape)


def sizes_in(calls: Call) -> set[int]:
    """Those of the axes, but for the first, of what layers give back."""
    outputs = (leaf for call in calls.walk() for leaf in keras.tree.flatten(call.outputs))
    tensors = (leaf for leaf in outputs if isinstance(leaf, tf.Tensor))
    return {size for leaf in tensors for size in leaf.shape[1:] if size}
