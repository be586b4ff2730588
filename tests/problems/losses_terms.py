"""Terms beside a loss: `add_loss` in each of its forms, and regularizers."""

import keras
from keras import layers, ops

from tests.problems._base import floats
from tests.problems._losses import (
    KEPT,
    B,
    S,
    T,
    loss_problem,
    padded,
    weighted,
    x_y,
)


def _regularized(**options):
    def model() -> keras.Model:
        start = keras.Input((3,))
        hidden = layers.Dense(4, "tanh", **options)(start)
        return keras.Model(start, layers.Dense(2, **options)(hidden))

    return model


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class AddsLoss(layers.Layer):
    """Adds the squares of its inputs: a vector [B], their mean, or their sum."""

    def __init__(self, form, **options):
        super().__init__(**options)
        self.form = form

    def call(self, inputs):
        squares = ops.sum(ops.square(inputs), axis=-1)
        reduce = {"vector": lambda v: v, "mean": ops.mean, "sum": ops.sum}[self.form]
        self.add_loss(reduce(squares))
        return inputs


def _added(form):
    def model() -> keras.Model:
        start = keras.Input((3,))
        return keras.Model(start, AddsLoss(form)(layers.Dense(4, "tanh")(start)))

    return model


def _x_only():
    return floats(B, 3, seed=1), None, None


def _regularized_mask() -> keras.Model:
    start = keras.Input((T,), dtype="int32")
    hidden = layers.Embedding(6, 3, mask_zero=True, embeddings_regularizer="l2")(start)
    return keras.Model(start, layers.Dense(2, kernel_regularizer="l2")(hidden))


PROBLEMS = (
    loss_problem(
        "add_loss_vector",
        _added("vector"),
        _x_only,
        "not_equivalent",
        "own_terms",
        ratio=B,
        loss=None,
    ),
    loss_problem(
        "add_loss_mean", _added("mean"), _x_only, "own_terms", "scalar_terms", ratio=1.0, loss=None
    ),
    loss_problem(
        "add_loss_sum",
        _added("sum"),
        _x_only,
        "not_equivalent",
        "own_terms",
        "scalar_terms",
        ratio=B,
        loss=None,
    ),
    loss_problem(
        "add_loss_mean_beside_mse",
        _added("mean"),
        lambda: (floats(B, 3, seed=1), floats(B, 4, seed=2), None),
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    loss_problem(
        "add_loss_vector_beside_mse",
        _added("vector"),
        lambda: (floats(B, 3, seed=1), floats(B, 4, seed=2), None),
        "not_equivalent",
        "own_terms",
    ),
    loss_problem(
        "activity_regularizer",
        _regularized(activity_regularizer="l2"),
        x_y,
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    loss_problem(
        "activity_regularization_layer",
        lambda: keras.Sequential(
            [keras.Input((3,)), layers.Dense(2, "tanh"), layers.ActivityRegularization(0.1, 0.2)]
        ),
        x_y,
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    loss_problem("regularizer_l2", _regularized(kernel_regularizer="l2"), x_y, ratio=1.0),
    loss_problem("regularizer_l1", _regularized(kernel_regularizer="l1"), x_y, ratio=1.0),
    loss_problem(
        "regularizers_and_weights",
        _regularized(kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02), bias_regularizer="l2"),
        weighted(*S),
        ratio=1.0,
    ),
    loss_problem(
        "regularizer_and_mask",
        _regularized_mask,
        padded(),
        "not_equivalent",
        "mask",
        ratio=B * KEPT / KEPT.sum(),
    ),
)
