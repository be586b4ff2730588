"""Samples that meet in the loss: no loss of a sample exists."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._sample_interaction import KIND
from keras_pergrad.equivalence.causes._separating import separating
from keras_pergrad.equivalence.causes.instruments import Case, Output

_SHARES = "Read shares, which add up all the same: `per_sample_gradients` with engine='factored'. "
_WITHIN = "To have the loss of a sample, compute it within each sample and take the mean."


def loss_interaction(case: Case) -> Iterator[Cause]:
    """One cause for every loss that ties samples to each other, in predictions or in `add_loss`."""
    for output in case.outputs:
        if case.tied[output.number] and output.where not in case.blamed:
            explains = case.undo_loss(output)
            yield Cause(KIND, output.where, _BECAUSE, _remedy(case, output), explains)
    for term in case.terms:
        if term.kind == "other":
            yield Cause(KIND, term.where, _TERM, _WITHIN, case.difference.leave_out(term))


_BECAUSE = (
    "Its derivative in one sample's predictions depends on the other samples, so that it is no sum "
    "of losses of the samples; a sample alone has another loss, not a part of this one."
)
_TERM = (
    "What it gives to `add_loss` is neither the sum nor the mean of what the samples give alone: "
    "it is computed across samples."
)


def _remedy(case: Case, output: Output) -> str:
    """Shares are none where the loss is one number: nobody can tell then whether they add up."""
    code = separating(case, output)
    first = "" if code is None else f"`{code}` separates, one number a sample. "
    return f"{first}{'' if case.run.is_opaque else _SHARES}{_WITHIN}"
