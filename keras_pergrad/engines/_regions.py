"""What a run makes of each weight, seen in a trace at a prime number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import tensorflow as tf

from keras_pergrad.engines._trace import gist
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs import Run, Traced
from keras_pergrad.sites import (
    Layouts,
    NoSiteError,
    Region,
    Trace,
    find_region,
    interactions,
)


@dataclass
class Regions:
    """What the trace shows.

    Attributes:
        regions: by the number of the variable, all that is made of it.
        fallbacks: by the number of the variable, why nothing certain is known.
        interaction: the first operation at which samples meet what was made of all, or None.
    """

    regions: dict[int, Region] = field(default_factory=dict)
    fallbacks: dict[int, str] = field(default_factory=dict)
    interaction: str | None = None


def find_regions(run: Run, prime: int) -> Regions:
    """Traces the run with `prime` samples, and follows every weight to where samples meet it.

    Raises:
        UnsupportedError: own gradients of a loss that has no axis of samples.
    """
    try:
        traced = run.traced_at(prime)
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
        because = f"the model does not run for another number of samples: {gist(error)}"
        return Regions(fallbacks=dict.fromkeys(range(len(run.variables)), because))
    if run.sums_own_losses and not traced.losses_of_samples:
        raise UnsupportedError(
            "A loss has other numbers than samples on its first axis, so that a batch cannot be "
            "reduced sample by sample. Use engine='vectorized', which runs each alone. "
            "Received: engine='factored', of='own'."
        )
    return _followed(traced, Layouts(prime))


def _followed(traced: Traced, layouts: Layouts) -> Regions:
    trace, found = Trace(traced.operations), Regions()
    first = next(interactions_in(traced, trace, layouts), None)
    found.interaction = None if first is None else first.name
    for k, weight in enumerate(traced.weights):
        if k in traced.rewritten:
            found.fallbacks[k] = "the forward pass assigns it"
            continue
        try:
            found.regions[k] = find_region(trace, layouts, weight, traced.loss)
        except NoSiteError as error:
            found.fallbacks[k] = str(error)
    return found


def interactions_in(traced: Traced, trace: Trace, layouts: Layouts) -> Iterator[tf.Operation]:
    touched = trace.depending_on(traced.data)
    forward = trace.operations[: traced.forward]
    return interactions(trace, layouts, traced.weights, touched, forward)
