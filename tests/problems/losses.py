"""Keras' own losses, each reduced as it is by default."""

import keras
import numpy as np
from keras import layers, losses

from tests.problems._base import Problem, floats, whole
from tests.problems._losses import (
    B,
    loss_problem,
    sequence,
    sequences,
    vectors,
    x_y,
)


def _sigmoid() -> keras.Model:
    start = keras.Input((3, 3, 1))
    return keras.Model(start, layers.Conv2D(1, 2, activation="sigmoid")(start))


def _positive() -> keras.Model:
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(4, "softmax")(layers.Dense(4, "tanh")(start)))


def _grids():
    truth = whole(2, B, 2, 2, 1, seed=2).astype(keras.config.floatx())
    return floats(B, 3, 3, 1, seed=1), truth, None


def _probabilities():
    truth = np.abs(floats(B, 4, seed=2)) + 0.1
    return floats(B, 3, seed=1), truth / truth.sum(axis=1, keepdims=True), None


def _ctc_model() -> keras.Model:
    start = keras.Input((5, 2))
    return keras.Model(start, layers.Dense(4)(layers.Dense(3, "tanh")(start)))


def _ctc():
    return floats(B, 5, 2, seed=1), whole(3, B, 2, seed=2) + 1, None


def _embeddings_of_classes():
    return floats(B, 3, seed=1), np.array([0, 1, 0, 1], "int32"), None


def _named(name, loss) -> Problem:
    """A plain [B] loss of Keras on probabilities."""
    return loss_problem(name, _positive, _probabilities, ratio=1.0, loss=loss)


PROBLEMS = (
    loss_problem("mse", vectors, x_y, ratio=1.0),
    loss_problem("mse_sequences", sequences, sequence(), ratio=1.0),
    _named("binary_crossentropy", losses.BinaryCrossentropy),
    _named("categorical_crossentropy", losses.CategoricalCrossentropy),
    _named("label_smoothing", lambda: losses.CategoricalCrossentropy(label_smoothing=0.1)),
    _named("categorical_focal_crossentropy", losses.CategoricalFocalCrossentropy),
    _named("kl_divergence", losses.KLDivergence),
    _named("poisson", losses.Poisson),
    _named("huber", lambda: losses.Huber(0.2)),
    _named("log_cosh", losses.LogCosh),
    _named("cosine_similarity", losses.CosineSimilarity),
    loss_problem(
        "ctc",
        _ctc_model,
        _ctc,
        "own_terms",
        "partly_float32",
        "loop_only",
        ratio=1.0,
        loss=losses.CTC,
    ),
    loss_problem("list_of_losses_on_one_output", vectors, x_y, ratio=1.0, loss=["mse", "mae"]),
    loss_problem("dice", _sigmoid, _grids, "no_decomposition", "not_equivalent", loss=losses.Dice),
    loss_problem(
        "dice_per_sample", _sigmoid, _grids, "own_terms", loss=lambda: losses.Dice(axis=(1, 2, 3))
    ),
    loss_problem(
        "tversky", _sigmoid, _grids, "no_decomposition", "not_equivalent", loss=losses.Tversky
    ),
    loss_problem(
        "circle",
        vectors,
        _embeddings_of_classes,
        "no_decomposition",
        "not_equivalent",
        loss=losses.Circle,
    ),
)
