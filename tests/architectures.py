"""Random architectures: a strategy that composes layers, reshapes, sharing, branches and losses."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

from tests.problems import compiled, floats, whole

WIDTH, STEPS = 3, 4  # features; positions of a sequence


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class RawWeights(layers.Layer):
    """Weights of its own, met in odd ways: scaled, divided by, transposed, added along time."""

    def build(self, shape):
        size = shape[-1]
        self.scale = self.add_weight(shape=(size,), initializer="ones")
        self.matrix = self.add_weight(shape=(size, size), initializer="glorot_uniform")
        self.divisor = self.add_weight(shape=(1,), initializer="ones")

    def call(self, inputs):
        turned = ops.matmul(inputs, ops.transpose(self.matrix))
        return ops.tanh(turned * self.scale - inputs / (2.0 + ops.square(self.divisor)))


def _flat_and_back(layer: layers.Layer, hidden):
    """`[B, T, d]` → `[B·T, d]`, a layer, and back."""
    flat = layer(ops.reshape(hidden, (-1, hidden.shape[-1])))
    return ops.reshape(flat, (-1, hidden.shape[1], WIDTH))


def _time_major(layer: layers.Layer, hidden):
    """`[B, T, d]` → `[T, B, d]`, a layer, and back."""
    return ops.transpose(layer(ops.transpose(hidden, (1, 0, 2))), (1, 0, 2))


# Each keeps `[B, STEPS, WIDTH]`; the argument is what it is applied to.
PIECES: dict[str, Callable] = {
    "dense": lambda h: layers.Dense(WIDTH, "tanh")(h),
    "einsum": lambda h: layers.EinsumDense("btd,de->bte", (STEPS, WIDTH), bias_axes="e")(h),
    "mixes_positions": lambda h: layers.EinsumDense("btd,dte->bte", (STEPS, WIDTH))(h),
    "layer_norm": lambda h: layers.LayerNormalization()(h),
    "group_norm": lambda h: layers.GroupNormalization(1)(h),
    "rms_norm": lambda h: layers.RMSNormalization()(h),
    "conv": lambda h: layers.Conv1D(WIDTH, 2, padding="same", activation="tanh")(h),
    "dilated_conv": lambda h: layers.Conv1D(WIDTH, 2, padding="causal", dilation_rate=2)(h),
    "depthwise_conv": lambda h: layers.DepthwiseConv1D(2, padding="same")(h),
    "separable_conv": lambda h: layers.SeparableConv1D(WIDTH, 2, padding="same")(h),
    "attention": lambda h: layers.MultiHeadAttention(2, 2)(h, h),
    "lstm": lambda h: layers.LSTM(WIDTH, return_sequences=True)(h),
    "gru_backwards": lambda h: layers.GRU(WIDTH, return_sequences=True, go_backwards=True)(h),
    "raw_weights": lambda h: RawWeights()(h),
    "prelu": lambda h: layers.PReLU(shared_axes=[1])(h),
    "dropout": lambda h: layers.Dropout(0.3, seed=5)(h),
    "flat": lambda h: _flat_and_back(layers.Dense(WIDTH, "tanh"), h),
    "time_major": lambda h: _time_major(layers.Dense(WIDTH, "tanh"), h),
    "roll": lambda h: ops.roll(h, 1, axis=1),
    "residual": lambda h: h + layers.Dense(WIDTH, "tanh")(h),
    "time_distributed": lambda h: layers.TimeDistributed(layers.Dense(WIDTH))(h),
}


def _shared(hidden):
    """One layer called three times, in two branches."""
    layer = layers.Dense(WIDTH, "tanh")
    return layer(layer(hidden)) + layer(hidden[:, ::-1])


def _tied(hidden):
    """A kernel used again, transposed."""
    layer = layers.Dense(WIDTH, use_bias=False)
    return ops.matmul(ops.tanh(layer(hidden)), ops.transpose(layer.kernel))


PIECES |= {"shared": _shared, "tied": _tied}
STARTS = ("floats", "ids", "masked_ids")
LOSSES = ("mse", "mae", "sum", "huber", "two_outputs")


@dataclass(frozen=True)
class Architecture:
    """A recipe: how it starts, its pieces in order, its loss, and whether samples are weighted."""

    start: str
    pieces: tuple[str, ...]
    loss: str
    weighted: bool
    size: int


def architectures() -> st.SearchStrategy[Architecture]:
    """Recipes of one to five pieces."""
    pieces = st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=5).map(tuple)
    return st.builds(
        Architecture,
        st.sampled_from(STARTS),
        pieces,
        st.sampled_from(LOSSES),
        st.booleans(),
        st.integers(2, 5),
    )


def build(recipe: Architecture) -> tuple[keras.Model, tuple]:
    """The compiled model of a recipe, and a batch for it."""
    start, hidden = _start(recipe.start)
    for name in recipe.pieces:
        hidden = PIECES[name](hidden)
    pooled = ops.mean(hidden, axis=1)
    weight = np.linspace(0.5, 2.0, recipe.size) if recipe.weighted else None
    x = floats(recipe.size, STEPS, WIDTH, seed=1)
    x = x if recipe.start == "floats" else whole(5, recipe.size, STEPS, seed=1)
    y = floats(recipe.size, 2, seed=2)
    outputs = layers.Dense(2)(pooled)
    if recipe.loss == "two_outputs":
        both = [outputs, layers.Dense(1, "sigmoid")(pooled)]
        model = compiled(keras.Model(start, both), ["mse", "mae"], loss_weights=[1.0, 0.3])
        return model, (x, [y, floats(recipe.size, 1, seed=3)], None)
    loss = keras.losses.MeanSquaredError(reduction="sum") if recipe.loss == "sum" else recipe.loss
    return compiled(keras.Model(start, outputs), loss), (x, y, weight)


def _start(kind: str):
    if kind == "floats":
        start = keras.Input((STEPS, WIDTH))
        return start, start
    start = keras.Input((STEPS,), dtype="int32")
    return start, layers.Embedding(5, WIDTH, mask_zero=kind == "masked_ids")(start)
