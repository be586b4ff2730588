"""A sample run alone, as a batch of one that is told what the batch's run did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_pergrad.runs import _parts
from keras_pergrad.runs._tape import LossAndGradients
from keras_pergrad.runs._terms import owned

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


def sample(
    run: Run, index: tf.Tensor, *, unroll: bool, note: Callable[[Any], None]
) -> LossAndGradients:
    """The loss and the gradients of sample `index`, whose predictions are noted."""
    free = run.free_terms

    def loss_of() -> tf.Tensor:
        told, batch = _parts.replay(run), run.batch.row(index)
        with told.of(index):
            y_pred, terms = _parts.forward(run, batch, unroll=unroll)
            note(y_pred)
            loss = _parts.loss(run, batch, y_pred, owned(terms, free), alone=True)
        told.expect_the_end()
        return loss

    return _parts.gradients(run, loss_of, run.gradient_scale)
