"""Terms of the loss beside Keras' own losses: what layers give to `add_loss`, and regularizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import UnsupportedError

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


def owned(terms: list[tf.Tensor], free: list[bool]) -> list[tf.Tensor]:
    """The terms, with zero in the place of those that depend on no data."""
    return [tf.zeros_like(t) if f else t for t, f in zip(terms, free, strict=True)]


def penalties(run: Run) -> list[tf.Tensor]:
    """What the regularizers give, in the order of the weights that have one."""
    return [v.regularizer(tf.convert_to_tensor(v)) for v in run.penalized]


def no_penalties(run: Run) -> list[tf.Tensor]:
    """A zero in the place of each."""
    return [tf.zeros((), run.values[id(v)].dtype) for v in run.penalized]


def overrides_compute_loss(model: keras.Model) -> bool:
    """Whether the user's own code computes the loss, and decides what it takes into it."""
    return type(model).compute_loss is not keras.Model.compute_loss


def loss_of_keras(model: keras.Model) -> Any:
    """What `compile` was given as the loss, where Keras' own `compute_loss` uses it; or None."""
    return None if overrides_compute_loss(model) else _keras.loss_given(model)


def expect_the_same_terms(run: Run) -> None:
    """Refuses a `compute_loss` that calls layers again and so replaces what they added.

    Raises:
        UnsupportedError: what is added can be told neither from the first call nor the second.
    """
    now = _keras.added_losses(run.model)
    if len(now) != len(run.terms) or any(a is not b for a, b in zip(now, run.terms, strict=True)):
        raise UnsupportedError(
            "`compute_loss` calls layers again, and what they give to `add_loss` (or an activity "
            "regularizer) takes the place of what the forward pass gave. Return all that the loss "
            f"needs from `call`. Received: model={run.model.name!r}."
        )
