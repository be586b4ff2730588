"""Shapes that are stretched against each other."""

import keras
from keras import layers, ops

from tests.broken.base import SIZE, Broken, Mixes, OwnLoss, numbers, own_loss
from tests.problems import compiled, floats


def _to_the_mean(x):
    """Meant as each row over its own size, laid against the others' by a missing axis."""
    return ops.mean(x[:, None, :] / (1 + ops.norm(x, axis=1, keepdims=True)), axis=1)


class Twice(OwnLoss):
    """One in a layer, another in the loss."""

    def __init__(self):
        super().__init__(lambda y, p: ops.mean((y[:, 0] - p) ** 2), units=1)
        self.stretcher = Mixes(_to_the_mean, name="stretcher")

    def call(self, inputs):
        return self.dense(self.stretcher(inputs))


def _in_layer_and_loss() -> keras.Model:
    model = Twice()
    model(floats(1, 5))
    return compiled(model, None)


class Difference(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean((y_true[:, 0] - y_pred) ** 2, axis=-1)


def _in_two_losses() -> keras.Model:
    start = keras.Input((5,))
    heads = {name: layers.Dense(1, name=name)(start) for name in ("left", "right")}
    losses = {name: Difference(name=f"{name}_difference") for name in heads}
    return compiled(keras.Model(start, heads), losses)


SHAPES: dict[str, Broken] = {
    "rank 1 against rank 2": Broken(
        own_loss(lambda y, p: ops.mean((y[:, 0] - p) ** 2), units=1),
        numbers(5),
        (("broadcast", "compute_loss"),),
    ),
    "weights along time": Broken(
        own_loss(
            lambda y, p: ops.mean(
                ops.mean((y - p) ** 2, axis=-1, keepdims=True)
                * ops.ones((1, SIZE))
                * ops.cast(ops.abs(y[:, 0]), p.dtype)
            )
        ),
        numbers(5),
        (("broadcast", "compute_loss"),),
    ),
    "two in one loss": Broken(
        own_loss(
            lambda y, p: (
                ops.mean((y[:, 0] - p) ** 2) + ops.mean(ops.max(y, axis=1) * ops.abs(p[:, :, None]))
            ),
            units=1,
        ),
        numbers(5),
        (("broadcast", "compute_loss"),),
    ),
    "in a layer and in the loss": Broken(
        _in_layer_and_loss, numbers(5), (("broadcast", "stretcher"), ("broadcast", "compute_loss"))
    ),
    "in two losses": Broken(
        _in_two_losses,
        lambda: (
            floats(SIZE, 5, seed=1),
            {"left": floats(SIZE, 1, seed=2), "right": floats(SIZE, 1, seed=3)},
            None,
        ),
        (("broadcast", "left"), ("broadcast", "right")),
    ),
}
