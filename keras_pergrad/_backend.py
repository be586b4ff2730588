"""The one backend that sample gradients are computed on."""

from __future__ import annotations

import keras

from keras_pergrad.errors import BackendError

if keras.backend.backend() != "tensorflow":
    raise BackendError(
        "keras_pergrad computes sample gradients with TensorFlow. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported. "
        f"Received: backend={keras.backend.backend()!r}."
    )
