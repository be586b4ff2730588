"""Several causes at once."""

import keras
from keras import layers, ops

from tests.broken.base import (
    ADDED,
    LOSS,
    MODEL,
    NORMAL,
    Broken,
    Penalty,
    chain,
    dense,
    images,
    masked,
    numbers,
    summed,
)

SEVERAL: dict[str, Broken] = {
    "batch normalization and a sum": Broken(
        chain((5,), dense(4), layers.BatchNormalization, dense(), loss=summed),
        numbers(5),
        ((MODEL, "batch_normalization"), (NORMAL, "mean_squared_error")),
    ),
    "batch normalization and Dice": Broken(
        chain(
            (6, 6, 1),
            lambda: layers.Conv2D(2, 3, padding="same"),
            layers.BatchNormalization,
            lambda: layers.Activation("sigmoid"),
            loss=keras.losses.Dice,
        ),
        images(2),
        ((MODEL, "batch_normalization"), (LOSS, "dice")),
    ),
    "mask and a vector given to add_loss": Broken(
        chain(
            (4, 3),
            layers.Masking,
            dense(4),
            lambda: Penalty(lambda x: ops.sum(x**2, axis=(1, 2)), name="penalty"),
            dense(),
        ),
        masked,
        ((NORMAL, "mse"), (ADDED, "penalty")),
    ),
}
