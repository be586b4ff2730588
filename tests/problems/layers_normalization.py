"""Normalizations: within a sample (exact), across the batch (couples), of the weights."""

import keras
from keras import layers

from tests.problems._base import Problem, compiled, floats, stack

COUPLES = ("layer", "couples", "writes_state", "not_equivalent")


def _frozen_batch_normalization() -> keras.Model:
    start = keras.Input((3,))
    frozen = layers.BatchNormalization()
    hidden = frozen(layers.Dense(4, activation="tanh")(start))
    frozen.trainable = False
    return compiled(keras.Model(start, layers.Dense(2)(hidden)))


def _inference_batch_normalization() -> keras.Model:
    """Keras 3.15 overrides this `training=False` with that of the model: it trains all the same."""
    start = keras.Input((3,))
    hidden = layers.Dense(4, activation="tanh")(start)
    hidden = layers.BatchNormalization()(hidden, training=False)
    return compiled(keras.Model(start, layers.Dense(2)(hidden)))


def _vectors():
    return floats(4, 3, seed=1), floats(4, 2, seed=2), None


def _between(make):
    return lambda: [layers.Dense(4, "tanh"), make(), layers.Dense(2, "tanh")]


PROBLEMS = (
    stack("layer_normalization", (3,), (2,), _between(layers.LayerNormalization)),
    stack(
        "layer_normalization_axes",
        (3, 2),
        (3, 2),
        _between(lambda: layers.LayerNormalization(axis=(1, 2))),
    ),
    stack("rms_normalization", (3,), (2,), _between(layers.RMSNormalization)),
    stack("group_normalization", (3, 2), (3, 2), _between(lambda: layers.GroupNormalization(2))),
    stack("unit_normalization", (3,), (2,), _between(layers.UnitNormalization)),
    stack(
        "batch_normalization_training",
        (3,),
        (2,),
        _between(layers.BatchNormalization),
        tags=COUPLES,
    ),
    stack(
        "batch_normalization_without_weights",
        (3,),
        (2,),
        _between(lambda: layers.BatchNormalization(center=False, scale=False)),
        tags=COUPLES,
    ),
    stack(
        "batch_normalization_images",
        (3, 3, 2),
        (2, 2, 2),
        lambda: [layers.Conv2D(2, 2), layers.BatchNormalization(), layers.Conv2D(2, 1)],
        tags=COUPLES,
    ),
    stack(
        "batch_normalization_renorm",
        (3,),
        (2,),
        _between(lambda: layers.BatchNormalization(renorm=True)),
        tags=COUPLES,
    ),
    Problem(
        "batch_normalization_frozen",
        _frozen_batch_normalization,
        _vectors,
        frozenset({"layer"}),
    ),
    Problem(
        "batch_normalization_inference",
        _inference_batch_normalization,
        _vectors,
        frozenset(COUPLES),
    ),
    stack(
        "spectral_normalization",
        (3,),
        (2,),
        lambda: [
            layers.SpectralNormalization(layers.Dense(4, activation="tanh")),
            layers.Dense(2),
        ],
        tags=("layer", "writes_state"),
    ),
    stack(
        "spectral_normalization_conv",
        (4, 4, 1),
        (3, 3, 2),
        lambda: [layers.SpectralNormalization(layers.Conv2D(2, 2, activation="tanh"))],
        tags=("layer", "writes_state"),
    ),
)
