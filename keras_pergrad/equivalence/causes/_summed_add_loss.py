"""`add_loss` of something that Keras, or the layer, sums over the samples."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, Term

KIND = "summed_add_loss"
_REMEDY = "Give it the mean: `self.add_loss(keras.ops.mean(per_sample))`."


def summed_add_loss(case: Case) -> Iterator[Cause]:
    """One cause for every term that counts as often as there are samples."""
    for term in case.terms:
        if term.kind in ("vector", "sum"):
            explains = case.difference.undo(factors=((term.number, 1 / case.size),))
            yield Cause(KIND, term.where, _because(term, case), _REMEDY, explains)


def _because(term: Term, case: Case) -> str:
    size = case.whole
    shape = tuple(size if axis == case.size else axis for axis in term.shape)
    what = (
        f"It gives one number a sample to `add_loss`, which Keras sums (shape {shape})"
        if term.kind == "vector"
        else "It gives the sum over the samples to `add_loss`"
    )
    return (
        f"{what}, so that in a batch of {size} the term counts {size} times as much against the "
        "loss, a mean, as in a batch of one."
    )
