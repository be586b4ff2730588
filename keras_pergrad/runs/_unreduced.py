"""A loss of one number a sample, to which Keras cannot add a regularizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs._terms import loss_of_keras


@contextlib.contextmanager
def unreduced_losses_told(model: keras.Model) -> Iterator[None]:
    """Says of a loss with `reduction=None` beside regularizers what Keras says of shapes.

    Raises:
        UnsupportedError: Keras failed to add the two.
    """
    try:
        yield
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        given = [each for each in keras.tree.flatten(loss_of_keras(model)) if each is not None]
        unreduced = [each for each in given if getattr(each, "reduction", "") in (None, "none")]
        if "Pack" not in str(error) or not unreduced or not model.losses:
            raise  # it is not from Keras' sum of the two
        raise UnsupportedError(
            "The loss has reduction=None, so that it is one number a sample, and Keras cannot add "
            "a regularizer or `add_loss` to that; nor can it without sample gradients. Use "
            "reduction='sum', which has the same gradient. "
            f"Received: {type(unreduced[0]).__name__}(reduction={unreduced[0].reduction!r}) and "
            f"{len(model.losses)} added losses.",
            causes=("loss_normalization",),
        ) from error
