"""A model that trains by a `train_step` of its own, which no check runs."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case

KIND = "own_train_step"


def own_train_step(case: Case) -> Iterator[Cause]:
    """A note on such a model."""
    yield from trains_by_itself(case.model)


def trains_by_itself(model: keras.Model) -> Iterator[Cause]:
    """The note, of a model."""
    if not _is_own(model):
        return
    because = (
        "The model trains by its own `train_step`, and the check judges `compute_loss` instead: "
        "what the step does beyond that is not checked."
    )
    remedy = "Move the loss into `compute_loss`, and leave the step to Keras."
    yield Cause(KIND, f"{type(model).__name__}.train_step", because, remedy)


def _is_own(model: keras.Model) -> bool:
    owner = next(each for each in type(model).__mro__ if "train_step" in vars(each))
    return owner.__module__.split(".")[0] not in ("keras", "keras_pergrad")
