"""A batch of no samples, on which some of TensorFlow's operations stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_pergrad.errors import DataError
from keras_pergrad.runs._batch import Batch


@contextlib.contextmanager
def no_samples_told(model: keras.Model, batch: Batch) -> Iterator[None]:
    """Says of a batch that is known to be empty what TensorFlow says of shapes.

    Raises:
        DataError: the model does not run on it.
    """
    try:
        yield
    except (ValueError, tf.errors.OpError) as error:
        if not (isinstance(batch.size, int) and batch.size == 0):
            raise
        raise DataError(
            "The batch has no samples, and TensorFlow cannot run this model on none, as it cannot "
            "convolutions and, eagerly, recurrent layers. Leave empty batches out. "
            f"Received: a batch of size 0 for model={model.name!r}."
        ) from error
