"""Several causes at once."""

from collections.abc import Callable

import keras
from keras import layers, ops

from tests.broken.base import (
    ADDED,
    LOSS,
    MODEL,
    NORMAL,
    SIZE,
    Broken,
    Penalty,
    chain,
    dense,
    images,
    masked,
    numbers,
    summed,
)
from tests.problems import compiled, floats


def two_losses(*losses) -> Callable[[], keras.Model]:
    """One loss an output, each of numbers between 0 and 1."""

    def build() -> keras.Model:
        start = keras.Input((5,))
        hidden = layers.Dense(6, "tanh")(start)
        outputs = [layers.Dense(3, "sigmoid", name=name)(hidden) for name in ("left", "right")]
        return compiled(keras.Model(start, outputs), [loss() for loss in losses])

    return build


def two_labels() -> tuple:
    labels = [(floats(SIZE, 3, seed=k) > 0).astype("float32") for k in (2, 3)]
    return floats(SIZE, 5, seed=1), labels, None


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
    "Dice and Tversky, each of an output": Broken(
        two_losses(keras.losses.Dice, keras.losses.Tversky),
        two_labels,
        ((LOSS, "left: dice"), (LOSS, "right: tversky")),
    ),
    "Dice, beside a sum that is fifty times as large": Broken(
        two_losses(keras.losses.Dice, lambda: summed()),
        lambda: (two_labels()[0], [two_labels()[1][0], 30 + two_labels()[1][1]], None),
        ((LOSS, "left: dice"), (NORMAL, "right: mean_squared_error")),
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
