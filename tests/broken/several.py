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


def two_losses(make: Callable[[], list | dict]) -> Callable[[], keras.Model]:
    """One loss an output, each of numbers between 0 and 1."""

    def build() -> keras.Model:
        start = keras.Input((5,))
        hidden = layers.Dense(6, "tanh")(start)
        outputs = {
            name: layers.Dense(3, "sigmoid", name=name)(hidden) for name in ("left", "right")
        }
        return compiled(keras.Model(start, outputs), make())

    return build


def _shared() -> dict:
    dice = keras.losses.Dice()
    return {"left": dice, "right": dice}


def two_labels(more: float = 0.0) -> tuple:
    left, right = ((floats(SIZE, 3, seed=k) > 0).astype("float32") for k in (2, 3))
    return floats(SIZE, 5, seed=1), {"left": left, "right": more + right}, None


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
        two_losses(lambda: {"left": keras.losses.Dice(), "right": keras.losses.Tversky()}),
        two_labels,
        ((LOSS, "left: dice"), (LOSS, "right: tversky")),
    ),
    "losses in another order than the outputs": Broken(
        two_losses(lambda: {"right": keras.losses.Dice(), "left": summed()}),
        two_labels,
        ((LOSS, "right: dice"), (NORMAL, "left: mean_squared_error")),
    ),
    "one Dice of two outputs": Broken(
        two_losses(_shared), two_labels, ((LOSS, "left: dice"), (LOSS, "right: dice"))
    ),
    "a sum, and an output without a loss": Broken(
        two_losses(lambda: {"left": summed(), "right": None}),
        two_labels,
        ((NORMAL, "left: mean_squared_error"),),
    ),
    "Dice, beside a sum that is fifty times as large": Broken(
        two_losses(lambda: {"left": keras.losses.Dice(), "right": summed()}),
        lambda: two_labels(more=30.0),
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
