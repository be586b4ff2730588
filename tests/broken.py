"""Models that are broken in a known way, each with what a report has to name, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tests.problems import compiled, floats, whole

SIZE = 12


@dataclass(frozen=True)
class Broken:
    """A model, a batch, the planted causes, kind and a part of the place; an engine that can."""

    build: Callable[[], keras.Model]
    batch: Callable[[], tuple]
    causes: tuple[tuple[str, str], ...]
    engine: str = "vectorized"


def numbers(*shape: int) -> Callable[[], tuple]:
    """A batch of `[SIZE, *shape]` with two numbers a sample to predict."""
    return lambda: (floats(SIZE, *shape, seed=1), floats(SIZE, 2, seed=2), None)


def chain(shape: tuple[int, ...], *made: Callable[[], Any], loss: Any = "mse"):
    """A functional model of layers that are made anew each time."""

    def build() -> keras.Model:
        hidden = start = keras.Input(shape)
        for make in made:
            hidden = make()(hidden)
        return compiled(keras.Model(start, hidden), loss() if callable(loss) else loss)

    return build


def dense(units: int = 2, **options: Any) -> Callable[[], keras.Layer]:
    return lambda: layers.Dense(units, **options)


class Mixes(keras.Layer):
    """A layer of the user's own that mixes samples by `function`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def mixing(function: Callable) -> Callable:
    """A chain in which a layer of one's own mixes the samples."""
    return chain((5,), dense(4), lambda: Mixes(function, name="mixer"), dense())


MIXERS: dict[str, Callable] = {
    "centre": lambda x: x - ops.mean(x, axis=0, keepdims=True),
    "softmax over the batch": lambda x: ops.softmax(x, axis=0),
    "attention over samples": lambda x: ops.softmax(x @ ops.transpose(x)) @ x,
    "deviation of the batch": lambda x: ops.concatenate(
        [x, ops.ones_like(x[:, :1]) * ops.std(x)], axis=1
    ),
    "largest of the batch": lambda x: x / (1 + ops.max(ops.abs(x), axis=0, keepdims=True)),
    "sorted": lambda x: x + 0.1 * ops.sort(x, axis=0),
    "running sum": lambda x: ops.cumsum(x, axis=0) / 10,
    "neighbours": lambda x: x + 0.5 * ops.roll(x, 1, axis=0),
    "length of the batch": lambda x: x / ops.norm(x),
}


class OwnLoss(keras.Model):
    """A dense model whose loss is `function(y, y_pred)`."""

    def __init__(self, function, units=2, **options):
        super().__init__(**options)
        self.dense, self.function = layers.Dense(units), function

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.function(y, y_pred)


def own_loss(function: Callable, units: int = 2) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        model = OwnLoss(function, units)
        model(floats(1, 5))
        return compiled(model, None)

    return build


def _contrastive(_, z):
    logits = z @ ops.transpose(z)
    return ops.mean(ops.logsumexp(logits, axis=1) - ops.diagonal(logits))


class Penalty(keras.Layer):
    """Gives `function(inputs)` to `add_loss`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function, self.supports_masking = function, True

    def call(self, inputs):
        self.add_loss(self.function(inputs))
        return inputs


def penalized(function: Callable) -> Callable:
    return chain((5,), dense(4), lambda: Penalty(function, name="penalty"), dense())


def _masked_inputs(width: int) -> np.ndarray:
    x = floats(SIZE, 4, width, seed=1)
    for k in range(SIZE):
        x[k, 1 + k % 4 :] = 0
    return x


def masked() -> tuple:
    return _masked_inputs(3), floats(SIZE, 4, 2, seed=2), None


def _two_outputs() -> keras.Model:
    start = keras.Input((5,))
    hidden = layers.Dense(4)(start)
    heads = [layers.Dense(2, name=name)(hidden) for name in ("left", "right")]
    model = keras.Model(start, dict(zip(("left", "right"), heads, strict=True)))
    summed = keras.losses.MeanSquaredError(reduction="sum", name="summed")
    return compiled(model, {"left": "mse", "right": summed})


def _nan_row() -> tuple:
    x, y, _ = numbers(5)()
    x[3] = np.nan
    return x, y, None


def _unsteady(x):
    import tensorflow as tf

    noise = tf.numpy_function(lambda: np.float32(np.random.default_rng().normal()), [], "float32")
    return x + ops.cast(tf.reshape(noise, []), x.dtype)


def _images(channels: int) -> Callable[[], tuple]:
    return lambda: (
        np.abs(floats(SIZE, 6, 6, 1, seed=1)),
        np.clip(np.abs(floats(SIZE, 6, 6, channels, seed=2)), 0, 1),
        None,
    )


def segmenting(loss: Callable) -> Callable:
    return chain(
        (6, 6, 1),
        lambda: layers.Conv2D(2, 3, padding="same", activation="sigmoid"),
        loss=loss,
    )


MODEL, LOSS, ADDED = "sample_interaction", "sample_interaction", "summed_add_loss"
NORMAL, SCALE = "loss_normalization", "loss_scale"
SUM = lambda: keras.losses.MeanSquaredError(reduction="sum")  # noqa: E731

BROKEN: dict[str, Broken] = {
    **{
        f"mixes: {name}": Broken(mixing(function), numbers(5), ((MODEL, "mixer"),))
        for name, function in MIXERS.items()
    },
    "batch normalization": Broken(
        chain((5,), dense(4), layers.BatchNormalization, dense()),
        numbers(5),
        ((MODEL, "batch_normalization"),),
    ),
    "batch normalization of images": Broken(
        chain(
            (6, 6, 1),
            lambda: layers.Conv2D(3, 3),
            layers.BatchNormalization,
            layers.GlobalAveragePooling2D,
            dense(),
        ),
        numbers(6, 6, 1),
        ((MODEL, "batch_normalization"),),
    ),
    "two batch normalizations": Broken(
        chain(
            (5,), dense(4), layers.BatchNormalization, dense(4), layers.BatchNormalization, dense()
        ),
        numbers(5),
        ((MODEL, "batch_normalization"), (MODEL, "batch_normalization_1")),
    ),
    "batch normalization in a nested model": Broken(
        chain(
            (5,),
            lambda: keras.Sequential(
                [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(name="deep")]
            ),
            dense(),
        ),
        numbers(5),
        ((MODEL, "deep"),),
    ),
    "batch normalization at each time": Broken(
        chain(
            (3, 5),
            lambda: layers.TimeDistributed(layers.BatchNormalization(name="inner")),
            layers.Flatten,
            dense(),
        ),
        numbers(3, 5),
        ((MODEL, "inner"),),
    ),
    "batch normalization and centring": Broken(
        chain(
            (5,),
            dense(4),
            layers.BatchNormalization,
            dense(4),
            lambda: Mixes(MIXERS["centre"], name="mixer"),
            dense(),
        ),
        numbers(5),
        ((MODEL, "batch_normalization"), (MODEL, "mixer")),
    ),
    "Dice": Broken(segmenting(keras.losses.Dice), _images(2), ((LOSS, "dice"),)),
    "Tversky": Broken(segmenting(keras.losses.Tversky), _images(2), ((LOSS, "tversky"),)),
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
    "sum": Broken(chain((5,), dense(), loss=SUM), numbers(5), ((NORMAL, "mean_squared_error"),)),
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
    "sum by hand": Broken(
        own_loss(lambda y, p: ops.sum((y - p) ** 2)), numbers(5), ((SCALE, "compute_loss"),)
    ),
    "divided twice": Broken(
        own_loss(lambda y, p: ops.mean((y - p) ** 2) / ops.cast(ops.shape(p)[0], p.dtype)),
        numbers(5),
        ((SCALE, "compute_loss"),),
    ),
    "a part summed by hand beside a mean": Broken(
        own_loss(lambda y, p: ops.mean((y - p) ** 2) + 0.1 * ops.sum(ops.abs(p) ** 3)),
        numbers(5),
        ((NORMAL, "compute_loss"),),
    ),
    "vector given to add_loss": Broken(
        penalized(lambda x: ops.sum(x**2, axis=1)), numbers(5), ((ADDED, "penalty"),)
    ),
    "sum given to add_loss": Broken(
        penalized(lambda x: ops.sum(x**2)), numbers(5), ((ADDED, "penalty"),)
    ),
    "norm of the batch given to add_loss": Broken(
        penalized(lambda x: ops.norm(x)), numbers(5), ((LOSS, "penalty"),)
    ),
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
    "NaN in the data": Broken(chain((5,), dense()), _nan_row, (("non_finite", "the batch"),)),
    "log of zero": Broken(
        mixing(lambda x: ops.log(ops.relu(x))), numbers(5), (("non_finite", "mixer"),)
    ),
    "slope of a root at zero": Broken(
        mixing(lambda x: x + ops.sqrt(ops.relu(x) * 0.0 * x[:, :1])),
        numbers(5),
        (("non_finite", "dense"),),
    ),
    "noise of NumPy": Broken(
        mixing(_unsteady), numbers(5), (("randomness", "mixer"),), engine="loop"
    ),
    "batch normalization and a sum": Broken(
        chain((5,), dense(4), layers.BatchNormalization, dense(), loss=SUM),
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
        _images(2),
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
