"""Layers that look at a sample's place in the batch, or at the batch's size."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._sample_interaction import KIND
from keras_pergrad.equivalence.causes.instruments import Case, Placing, place_of

_LOOKS = {
    True: "the sample's place in the batch",
    False: "the batch's size",
    None: "the batch's size or the sample's place",
}
_REMEDY = {
    True: "Give what depends on the place as data, one number a sample, beside the inputs",
    False: "Use no number made of the batch's size, as `keras.ops.shape(x)[0]`; the mean over the "
    "batch is taken by the loss",
    None: "Compute it from the sample alone; what depends on its place is data, beside the inputs",
}


def sample_place(case: Case) -> Iterator[Cause]:
    """One cause for every layer that mixes no samples and gives one alone something else.

    Where it is undone and no gradient changes, it is a layer that the loss does not see.
    """
    if not case.difference.exists:
        return
    for placing in case.placing:
        explains = case.difference.undo(layers=(placing.layer,))
        if explains is None or case.difference.changed:
            because, remedy = _behaviour(placing), f"{_REMEDY[placing.by_place]}."
            yield Cause(KIND, place_of(placing.layer), because, remedy, explains)


def _behaviour(placing: Placing) -> str:
    return (
        "Its output for a sample is another in a batch than alone, by up to "
        f"{placing.strength:.2g} of the largest output, though no other sample's values move it: "
        f"it looks at {_LOOKS[placing.by_place]}."
    )
