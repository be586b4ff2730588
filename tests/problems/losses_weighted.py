"""Denominators: weights, masks, reductions, and several outputs."""

import keras
import numpy as np
from keras import layers, losses

from tests.problems._base import floats
from tests.problems._losses import (
    KEPT,
    PADDED,
    B,
    S,
    T,
    loss_problem,
    padded,
    sequence,
    sequences,
    vectors,
    weighted,
    x_y,
)


def _masked() -> keras.Model:
    """Outputs [B, T, 2] that carry the mask of the embedding."""
    start = keras.Input((T,), dtype="int32")
    return keras.Model(start, layers.Dense(2)(layers.Embedding(6, 3, mask_zero=True)(start)))


def _classes() -> keras.Model:
    start = keras.Input((T, 2))
    return keras.Model(start, layers.Dense(5)(layers.Dense(3, "tanh")(start)))


def _logits() -> keras.Model:
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(4)(layers.Dense(4, "tanh")(start)))


def _two_heads() -> keras.Model:
    """One masked output [B, T, 2] and one pooled output [B, 2]."""
    words, numbers = keras.Input((T,), dtype="int32"), keras.Input((3,))
    hidden = layers.Embedding(6, 3, mask_zero=True)(words)
    other = layers.Embedding(6, 2, mask_zero=True)(words[:, ::-1])
    per_word = layers.Dense(2, name="words")(hidden)
    reverse = layers.Dense(2, name="reversed")(other)
    pooled = layers.Dense(2, name="pooled")(layers.Dense(3, "tanh")(numbers))
    return keras.Model([words, numbers], [per_word, reverse, pooled])


LABELS = np.array([[0, 1, 2], [0, 0, 3], [4, 1, 1], [2, 0, 4]], "int32")
LABELLED = (LABELS != 0).sum(axis=1)
ST = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0], [0.0, 0.0, 3.0], [2.0, 1.0, 0.5]])
CLASS_WEIGHT = {0: 0.5, 1: 2.0, 2: 3.0}
CLASSES = np.array([2, 0, 1, 1], "int32")


def _labels():
    return floats(B, T, 2, seed=1), LABELS, None


def _class_weighted():
    weights = np.array([CLASS_WEIGHT[c] for c in CLASSES], keras.config.floatx())
    return floats(B, 3, seed=1), CLASSES, weights


def _three_heads():
    words, numbers = np.array([[1, 0, 0], [2, 3, 0], [4, 5, 1], [3, 4, 0]]), floats(B, 3, seed=1)
    targets = [floats(B, T, 2, seed=2), floats(B, T, 2, seed=3), floats(B, 2, seed=4)]
    return [words.astype("int32"), numbers], targets, None


def _softmax_loss():
    return losses.SparseCategoricalCrossentropy(from_logits=True)


PROBLEMS = (
    loss_problem("sample_weight", vectors, weighted(*S), ratio=1.0),
    loss_problem("sample_weight_column", vectors, weighted(*S[:, None]), ratio=1.0),
    loss_problem("sample_weight_zero", vectors, weighted(0.0, 1.0, 0.0, 2.0), ratio=1.0),
    loss_problem("sample_weight_all_zero", vectors, weighted(0.0, 0.0, 0.0, 0.0), ratio=1.0),
    loss_problem("sample_weight_negative", vectors, weighted(-1.0, 1.0, 0.5, 2.0), ratio=1.0),
    loss_problem("sample_weight_huge", vectors, weighted(1e4, 1.0, 0.5, 2.0), ratio=1.0),
    loss_problem("sample_weight_positions", sequences, sequence(ST), ratio=1.0),
    loss_problem("sample_weight_column_on_positions", sequences, sequence(S[:, None]), ratio=1.0),
    loss_problem("class_weight", _logits, _class_weighted, ratio=1.0, loss=_softmax_loss),
    loss_problem("mask", _masked, padded(), "not_equivalent", "mask", ratio=B * KEPT / KEPT.sum()),
    loss_problem(
        "mask_and_weights",
        _masked,
        padded(S[:, None]),
        "not_equivalent",
        "mask",
        ratio=B * KEPT / KEPT.sum(),
    ),
    loss_problem(
        "mask_sum",
        _masked,
        padded(),
        "not_equivalent",
        "mask",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction="sum"),
    ),
    loss_problem(
        "ignore_class",
        _classes,
        _labels,
        "not_equivalent",
        "mask",
        ratio=B * LABELLED / LABELLED.sum(),
        loss=lambda: losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    ),
    loss_problem(
        "sum",
        sequences,
        sequence(),
        "not_equivalent",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction="sum"),
    ),
    loss_problem(
        "mean_with_sample_weight",
        vectors,
        weighted(*S),
        "not_equivalent",
        "own_terms",
        ratio=B * S / S.sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    loss_problem(
        "mean_with_sample_weight_positions",
        sequences,
        sequence(ST),
        "not_equivalent",
        "own_terms",
        ratio=B * ST.sum(axis=1) / ST.sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    loss_problem(
        "mean_with_sample_weight_masked",
        _masked,
        padded(ST),
        "not_equivalent",
        "own_terms",
        ratio=B * (ST * (PADDED != 0)).sum(axis=1) / (ST * (PADDED != 0)).sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    loss_problem(
        "no_reduction",
        vectors,
        x_y,
        "not_equivalent",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction=None),
    ),
    loss_problem(
        "several_outputs_weights_masks",
        _two_heads,
        _three_heads,
        "not_equivalent",
        "mask",
        loss=["mse", "mse", "mse"],
        loss_weights=[0.5, 2.0, 3.0],
    ),
)
