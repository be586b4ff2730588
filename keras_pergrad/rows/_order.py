"""Pipelines whose rows have the same places each time they are read."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import DataError


def expect_in_order(data: tf.data.Dataset) -> None:
    """Refuses a pipeline that shuffles.

    Raises:
        DataError: with the name of what does.
    """
    for name in _keras.transformations(data):
        if "Shuffle" in name:
            raise DataError(
                "The dataset is shuffled, so that its rows have other places each time. Give it as "
                f"it was before. Received: a {name}."
            )
