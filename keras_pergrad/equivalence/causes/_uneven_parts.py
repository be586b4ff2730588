"""A loss whose parts count each in its way: no one weight a sample."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._loss_normalization import EVEN, KIND
from keras_pergrad.equivalence.causes._sample_interaction import KIND as INTERACTION
from keras_pergrad.equivalence.causes.instruments import Case

_UNEVEN = (
    "It is a sum over samples, but its parts count otherwise in a batch than for a sample alone: "
    "one is summed over the batch, or divided by a number made of it, beside one that is a mean."
)
_TIED = "It is no sum of losses of the samples: what one adds depends on the others."
_WITHIN = "Compute it within each sample, and take the mean."


def uneven_parts(case: Case) -> Iterator[Cause]:
    """One cause where the whole loss, computed sample by sample, is what nothing else explains.

    Its parts count each in its way, as a sum over the batch beside a mean: no one weight a sample.
    """
    if not case.difference.is_left():
        return
    explains = case.difference.undo(loss=True)
    if explains is None or case.difference.is_left():
        return
    if any(case.tied):
        yield Cause(INTERACTION, "compute_loss", _TIED, _WITHIN, explains)
    else:
        yield Cause(KIND, "compute_loss", _UNEVEN, EVEN, explains)
