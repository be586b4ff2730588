"""What is said of a batch of which no sample can be run alone, whatever the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from keras_pergrad.engines import one_by_one, why_not_alone
from keras_pergrad.equivalence._once import Request, as_in_training
from keras_pergrad.errors import UnsupportedError


@contextlib.contextmanager
def told_of_no_sample_alone(request: Request) -> Iterator[None]:
    """Says so where an engine refuses and the loop could not either: another engine is no help.

    Raises:
        UnsupportedError: with the reason, and the address of the section.
    """
    try:
        yield
    except UnsupportedError as error:
        reason = None if error.sections else _reason(request)
        if reason is None:
            raise
        raise UnsupportedError(
            "No sample of this batch can be run alone, by no engine, so that there is no gradient "
            "of a sample to compare: the model or the loss needs several, as one that takes the "
            "largest losses of a batch. To have the gradient of a sample, compute it within each. "
            f"Received: {reason}",
            causes=("sample_interaction",),
        ) from error


def _reason(request: Request) -> str | None:
    """Why the first sample cannot be run alone; None if it can, or was never to be."""
    run, _ = as_in_training(request, of="own")
    if why_not_alone(run) is not None:
        return None
    try:
        one_by_one(run, tf.constant([0]))
    except UnsupportedError as error:
        return str(error).partition(": ")[2].partition(" Use engine=")[0]
    return None
