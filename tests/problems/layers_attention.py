"""Attention in all its layers, and a Transformer block."""

import keras
from keras import layers

from tests.problems._base import Problem, compiled, floats, whole

LAYER = frozenset({"layer"})


def _self_attention(make, **options):
    def build() -> keras.Model:
        start = keras.Input((4, 3))
        hidden = layers.Dense(4, activation="tanh")(start)
        return compiled(keras.Model(start, make()(hidden, hidden, **options)))

    return build


def _cross_attention() -> keras.Model:
    query, value = keras.Input((3, 2)), keras.Input((4, 3))
    attended = layers.MultiHeadAttention(2, 2, value_dim=3, output_shape=2)(query, value)
    return compiled(keras.Model([query, value], layers.Dense(2, "tanh")(attended)))


def _list_attention(make):
    def build() -> keras.Model:
        start = keras.Input((4, 3))
        query, value = layers.Dense(4, "tanh")(start), layers.Dense(4, "tanh")(start)
        return compiled(keras.Model(start, make()([query, value])))

    return build


def _masked_attention() -> keras.Model:
    start = keras.Input((4,), dtype="int32")
    hidden = layers.Embedding(6, 4, mask_zero=True)(start)
    attended = layers.MultiHeadAttention(2, 2)(hidden, hidden)
    pooled = layers.GlobalAveragePooling1D()(attended)
    return compiled(keras.Model(start, layers.Dense(2)(pooled)))


def _masked_ids():
    ids = whole(5, 4, 4, seed=1) + 1
    ids[0, 2:] = 0
    ids[2, 3:] = 0
    return ids, floats(4, 2, seed=2), None


def transformer_block(hidden, width: int):
    """Attention and a feed-forward part, each with a residual and a normalization."""
    attended = layers.MultiHeadAttention(2, 2)(hidden, hidden, use_causal_mask=True)
    hidden = layers.LayerNormalization()(hidden + attended)
    forward = layers.Dense(width, activation="gelu")(hidden)
    forward = layers.Dense(hidden.shape[-1])(forward)
    return layers.LayerNormalization()(hidden + forward)


def _transformer() -> keras.Model:
    start = keras.Input((4,), dtype="int32")
    places = keras.ops.zeros_like(start) + keras.ops.arange(4, dtype="int32")
    hidden = layers.Embedding(7, 4)(start) + layers.Embedding(4, 4)(places)
    hidden = transformer_block(transformer_block(hidden, 6), 6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(keras.Model(start, layers.Dense(7)(hidden)), loss)


def _sequence():
    return floats(4, 4, 3, seed=1), floats(4, 4, 4, seed=2), None


PROBLEMS = (
    Problem(
        "multi_head_attention",
        _self_attention(lambda: layers.MultiHeadAttention(2, 2)),
        _sequence,
        LAYER,
    ),
    Problem(
        "multi_head_attention_causal",
        _self_attention(lambda: layers.MultiHeadAttention(2, 3), use_causal_mask=True),
        _sequence,
        LAYER,
    ),
    Problem(
        "multi_head_cross_attention",
        _cross_attention,
        lambda: (
            [floats(4, 3, 2, seed=1), floats(4, 4, 3, seed=3)],
            floats(4, 3, 2, seed=2),
            None,
        ),
        LAYER,
    ),
    Problem("multi_head_attention_masked", _masked_attention, _masked_ids, LAYER),
    Problem(
        "group_query_attention",
        _self_attention(lambda: layers.GroupQueryAttention(2, 4, 2)),
        _sequence,
        LAYER,
    ),
    Problem(
        "attention_scale",
        _list_attention(lambda: layers.Attention(use_scale=True)),
        _sequence,
        LAYER,
    ),
    Problem(
        "attention_concat",
        _list_attention(lambda: layers.Attention(score_mode="concat", use_scale=True)),
        _sequence,
        LAYER,
    ),
    Problem(
        "additive_attention",
        _list_attention(lambda: layers.AdditiveAttention()),
        _sequence,
        LAYER,
    ),
    Problem(
        "transformer",
        _transformer,
        lambda: (whole(7, 3, 4, seed=1), whole(7, 3, 4, seed=2), None),
        LAYER,
    ),
)
