"""Losses that tie, weigh or scale samples."""

import keras
import numpy as np
from keras import layers, ops

from tests.broken.base import (
    LOSS,
    NORMAL,
    SCALE,
    SIZE,
    Broken,
    chain,
    dense,
    images,
    masked,
    numbers,
    own_loss,
    segmenting,
    summed,
)
from tests.problems import compiled, floats, whole


def _contrastive(_, z):
    logits = z @ ops.transpose(z)
    return ops.mean(ops.logsumexp(logits, axis=1) - ops.diagonal(logits))


def _two_outputs() -> keras.Model:
    start = keras.Input((5,))
    hidden = layers.Dense(4)(start)
    heads = [layers.Dense(2, name=name)(hidden) for name in ("left", "right")]
    model = keras.Model(start, dict(zip(("left", "right"), heads, strict=True)))
    summed = keras.losses.MeanSquaredError(reduction="sum", name="summed")
    return compiled(model, {"left": "mse", "right": summed})


def _for_several(factor: float, scale: float | None = None, **options):
    """A mean that counts `factor` for several samples, beside an optimizer that has it, too."""

    def build() -> keras.Model:
        def loss(y, y_pred):
            several = ops.shape(y_pred)[0] > 1
            return ops.mean((y - y_pred) ** 2) * ops.where(several, factor, 1.0)

        model = own_loss(loss)()
        optimizer = keras.optimizers.SGD(**options)
        if scale is not None:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
        model.compile(optimizer, auto_scale_loss=False)
        return model

    return build


class PerTarget(keras.losses.Loss):
    """Divides by how many targets there are in the whole batch."""

    def call(self, y, y_pred):
        return ops.sum((y - y_pred) ** 2, -1) / (1 + ops.sum(ops.cast(y > 0, y_pred.dtype)))


def centred(y, y_pred):
    """Against targets less their mean over the batch."""
    return ops.mean((y - ops.mean(y, axis=0) - y_pred) ** 2, axis=-1)


class TwoParts(keras.Model):
    """Sums the loss of one output over the batch, and takes the mean of the other's."""

    def __init__(self):
        super().__init__()
        self.left, self.right = layers.Dense(2), layers.Dense(2)

    def call(self, inputs):
        return self.left(inputs), self.right(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum((y - y_pred[0]) ** 2) + ops.mean((y - y_pred[1]) ** 2)


def _two_parts() -> keras.Model:
    model = TwoParts()
    model(floats(1, 5))
    return compiled(model, None)


LOSSES: dict[str, Broken] = {
    "Dice": Broken(segmenting(keras.losses.Dice), images(2), ((LOSS, "dice"),)),
    "Tversky": Broken(segmenting(keras.losses.Tversky), images(2), ((LOSS, "tversky"),)),
    "contrastive": Broken(own_loss(_contrastive), numbers(5), ((LOSS, "compute_loss"),)),
    "pairs": Broken(
        own_loss(lambda y, p: ops.mean(ops.abs(p[:, None] - p[None, :]) ** 2)),
        numbers(5),
        ((LOSS, "compute_loss"),),
    ),
    "correlation": Broken(
        own_loss(lambda y, p: -ops.sum(y * p) / ops.norm(p)),
        numbers(5),
        ((LOSS, "compute_loss"),),
    ),
    "sum": Broken(chain((5,), dense(), loss=summed), numbers(5), ((NORMAL, "mean_squared_error"),)),
    "no reduction": Broken(
        chain((5,), dense(), loss=lambda: keras.losses.MeanSquaredError(reduction=None)),
        numbers(5),
        ((NORMAL, "mean_squared_error"),),
    ),
    "mask": Broken(chain((4, 3), layers.Masking, dense()), masked, ((NORMAL, "mse"),)),
    "ignored class": Broken(
        chain(
            (4, 3),
            dense(3),
            loss=lambda: keras.losses.SparseCategoricalCrossentropy(True, ignore_class=0),
        ),
        lambda: (floats(SIZE, 4, 3, seed=1), whole(3, SIZE, 4, seed=4), None),
        ((NORMAL, "sparse_categorical_crossentropy"),),
    ),
    "weights cancel": Broken(
        chain(
            (5,),
            dense(),
            loss=lambda: keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        ),
        lambda: (*numbers(5)()[:2], np.linspace(0.5, 2, SIZE).astype(keras.config.floatx())),
        ((NORMAL, "mean_squared_error"),),
    ),
    "a weighted mean by hand": Broken(
        own_loss(lambda y, p: ops.sum((1 + ops.relu(y)) * (y - p) ** 2) / ops.sum(1 + ops.relu(y))),
        numbers(5),
        ((NORMAL, "compute_loss"),),
    ),
    "one of two outputs is summed": Broken(
        _two_outputs,
        lambda: (
            floats(SIZE, 5, seed=1),
            {"left": floats(SIZE, 2, seed=2), "right": floats(SIZE, 2, seed=3)},
            None,
        ),
        ((NORMAL, "right"),),
    ),
    "targets less their mean over the batch": Broken(
        chain((5,), dense(), loss=lambda: centred), numbers(5), ((NORMAL, "centred"),)
    ),
    "a sum of what the batch's targets divide": Broken(
        chain((5,), dense(), loss=lambda: PerTarget(reduction="sum", name="per_target")),
        numbers(5),
        ((NORMAL, "per_target"), (NORMAL, "per_target")),
    ),
    "one of two outputs is summed by hand": Broken(
        _two_parts, numbers(5), ((NORMAL, "compute_loss"),)
    ),
    "sum by hand": Broken(
        own_loss(lambda y, p: ops.sum((y - p) ** 2)), numbers(5), ((SCALE, "compute_loss"),)
    ),
    "divided twice": Broken(
        own_loss(lambda y, p: ops.mean((y - p) ** 2) / ops.cast(ops.shape(p)[0], p.dtype)),
        numbers(5),
        ((SCALE, "compute_loss"),),
    ),
    "the loss scale by hand": Broken(
        _for_several(64.0, scale=64.0), numbers(5), ((SCALE, "compute_loss"),)
    ),
    "accumulation by hand": Broken(
        _for_several(0.25, gradient_accumulation_steps=4), numbers(5), ((SCALE, "compute_loss"),)
    ),
    "a part summed by hand beside a mean": Broken(
        own_loss(lambda y, p: ops.mean((y - p) ** 2) + 0.1 * ops.sum(ops.abs(p) ** 3)),
        numbers(5),
        ((NORMAL, "compute_loss"),),
    ),
}
