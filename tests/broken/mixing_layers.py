"""Samples that meet in the model."""

from collections.abc import Callable

import keras
from keras import layers, ops

from tests.broken.base import MODEL, Broken, Mixes, chain, dense, mixing, numbers

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


MIXING: dict[str, Broken] = {
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
}
