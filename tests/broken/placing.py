"""Layers that look at a sample's place in the batch, or at the batch's size; and some that do not.

No other sample's values move what they give back, so that no coupling shows them.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers, ops

from tests.broken.base import (
    MODEL,
    NORMAL,
    SIZE,
    Broken,
    Mixes,
    chain,
    dense,
    mixing,
    numbers,
    summed,
)
from tests.problems import compiled, floats


def by_place(x):
    place = ops.cast(ops.arange(ops.shape(x)[0]), x.dtype)
    return x * (1 + ops.reshape(place, [-1] + [1] * (len(x.shape) - 1)))


def over_size(x):
    return x / ops.cast(ops.shape(x)[0], x.dtype)


def _fading(x):
    """Row by row, as one would write it in Python."""
    return ops.stack([x[k] * 0.8**k for k in range(x.shape[0] or 1)])


def _mapped(x):
    """Row by row in a loop of TensorFlow's."""
    places = tf.range(tf.shape(x)[0])
    return tf.map_fn(
        lambda k: x[k] / (1 + tf.cast(k, x.dtype)), places, fn_output_signature=x.dtype
    )


PLACERS: dict[str, Callable] = {
    "divides by the batch's size": over_size,
    "looks at the place": by_place,
    "only the first": lambda x: ops.concatenate([2 * x[:1], x[1:]], axis=0),
    "alternates": lambda x: x * (-1.0) ** ops.cast(ops.arange(ops.shape(x)[0])[:, None], x.dtype),
    "loops over the batch": _fading,
    "maps over the batch": _mapped,
}


class Around(keras.Layer):
    """Calls a layer, and `function` on what it gives."""

    def __init__(self, layer, function, **options):
        super().__init__(**options)
        self.layer, self.function = layer, function

    def build(self, shape):
        self.layer.build(shape)

    def call(self, inputs):
        return self.function(self.layer(inputs))


def around(layer: Callable, function: Callable) -> Callable:
    """A chain with `function` around a layer, in the layer `outer`."""
    return chain((5,), dense(4), lambda: Around(layer(), function, name="outer"), dense())


PLACING: dict[str, Broken] = {
    **{
        name: Broken(mixing(function), numbers(5), ((MODEL, "mixer"),))
        for name, function in PLACERS.items()
    },
    "looks at the place, inside another layer": Broken(
        around(lambda: Mixes(by_place, name="inner"), lambda x: 2 * x),
        numbers(5),
        ((MODEL, "inner"),),
    ),
    "looks at the place inside, divides by the size outside": Broken(
        around(lambda: Mixes(by_place, name="inner"), over_size),
        numbers(5),
        ((MODEL, "inner"), (MODEL, "outer")),
    ),
    "looks at the place of what a batch normalization gives": Broken(
        around(lambda: layers.BatchNormalization(name="inner"), by_place),
        numbers(5),
        ((MODEL, "inner"), (MODEL, "outer")),
    ),
    "divides by the batch's size what it drops": Broken(
        around(lambda: layers.Dropout(0.4, name="inner"), over_size),
        numbers(5),
        ((MODEL, "outer"),),
    ),
    "looks at the place at each time": Broken(
        chain(
            (3, 5),
            lambda: layers.TimeDistributed(layers.Lambda(by_place, name="inner")),
            layers.Flatten,
            dense(),
        ),
        numbers(3, 5),
        ((MODEL, "inner"),),
    ),
    "looks at the place, and a sum": Broken(
        chain((5,), dense(4), lambda: Mixes(by_place, name="mixer"), dense(), loss=summed),
        numbers(5),
        ((MODEL, "mixer"), (NORMAL, "mean_squared_error")),
    ),
}


def _with_watched_place() -> keras.Model:
    """The place is in an output that is not in the loss."""
    start = keras.Input((5,))
    hidden = layers.BatchNormalization()(layers.Dense(4)(start))
    heads = {"head": layers.Dense(2, name="head")(hidden), "watched": Mixes(by_place)(hidden)}
    return compiled(keras.Model(start, heads), {"head": "mse"})


# Beside something else, so that the check fails and causes are looked for: only that is one.
INNOCENT: dict[str, Broken] = {
    name: Broken(build, batch, ((NORMAL, "mean_squared_error"),))
    for name, (build, batch) in {
        "reshaped by the batch's size": (
            chain(
                (5,),
                lambda: Mixes(lambda x: ops.reshape(x, (ops.shape(x)[0], x.shape[1]))),
                dense(),
                loss=summed,
            ),
            numbers(5),
        ),
        "the place in time": (
            chain(
                (3, 5),
                lambda: Mixes(lambda x: x * ops.cast(ops.arange(3)[:, None], x.dtype)),
                layers.Flatten,
                dense(),
                loss=summed,
            ),
            numbers(3, 5),
        ),
        "a loop in which samples do not meet": (
            chain(
                (5,),
                lambda: Mixes(lambda x: tf.map_fn(ops.tanh, x)),
                dense(),
                loss=summed,
            ),
            numbers(5),
        ),
        "noise that is one for all": (
            chain((5,), dense(4), lambda: layers.Dropout(0.5, (1, 4)), dense(), loss=summed),
            numbers(5),
        ),
    }.items()
} | {
    "the place is only watched": Broken(
        _with_watched_place,
        lambda: (floats(SIZE, 5, seed=1), {"head": floats(SIZE, 2, seed=2)}, None),
        ((MODEL, "batch_normalization"),),
    )
}
