"""Dense maps, embeddings, and everything that reuses one matrix."""

import keras
from keras import layers

from tests.problems._base import Problem, compiled, floats, stack, whole


def _lora() -> list:
    dense = layers.Dense(3, activation="tanh")
    dense.build((None, 5))
    dense.enable_lora(2)
    return [dense, layers.Dense(2)]


def _lora_embedding() -> list:
    embedding = layers.Embedding(6, 4)
    embedding.build((None, 3))
    embedding.enable_lora(2)
    return [embedding, layers.Flatten(), layers.Dense(2)]


def _lora_einsum() -> list:
    einsum = layers.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d")
    einsum.build((None, 4, 5))
    einsum.enable_lora(2)
    return [einsum]


def _reversible(tie: bool, **options):
    def build() -> keras.Model:
        start = keras.Input((4,), dtype="int32")
        embedding = layers.ReversibleEmbedding(7, 3, tie_weights=tie, **options)
        hidden = layers.Dense(3, activation="tanh")(embedding(start))
        logits = embedding(hidden, reverse=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return compiled(keras.Model(start, logits), loss)

    return build


def _tokens():
    return whole(7, 4, 4, seed=1), whole(7, 4, 4, seed=2), None


def _repeated():
    """Ids that occur several times in a sample, and in several samples."""
    return whole(3, 4, 5, seed=3)


def _padded():
    ids = whole(5, 4, 5, seed=4) + 1
    ids[0, 3:] = 0
    ids[1, 4:] = 0
    return ids


def _called_twice() -> keras.Model:
    start = keras.Input((3,))
    shared = layers.Dense(3, activation="tanh")
    return compiled(keras.Model(start, shared(shared(start))))


def _called_on_two_inputs() -> keras.Model:
    left, right = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(2, activation="tanh")
    output = layers.Subtract()([shared(left), shared(right)])
    return compiled(keras.Model([left, right], output))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class TiedDecoder(layers.Layer):
    """Decodes with the transposed kernel of another layer."""

    def __init__(self, encoder, **options):
        super().__init__(**options)
        self.encoder = encoder

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.encoder.kernel))


def _tied() -> keras.Model:
    start = keras.Input((4,))
    encoder = layers.Dense(2, activation="tanh")
    return compiled(keras.Model(start, TiedDecoder(encoder)(encoder(start))))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class RawWeights(layers.Layer):
    """Weights of its own in an expression that no Keras layer has."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.matrix = self.add_weight(shape=(shape[-1], 2), name="matrix")
        self.shift = self.add_weight(shape=(), name="shift")

    def call(self, inputs):
        wave = keras.ops.sin(inputs * self.scale) @ self.matrix
        return wave / (1.0 + keras.ops.square(self.scale[0])) + self.shift


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class FlatDense(layers.Layer):
    """(B, T, d) → (B·T, d) before a dense layer, and back, so that the loss keeps [B, T]."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.dense = layers.Dense(units, activation="tanh")

    def build(self, shape):
        self.dense.build((None, shape[-1]))

    def call(self, inputs):
        time, depth = inputs.shape[1:]
        flat = keras.ops.reshape(inputs, (-1, depth))
        return keras.ops.reshape(self.dense(flat), (-1, time, self.units))


def _two_inputs():
    return [floats(4, 3, seed=1), floats(4, 3, seed=5)], floats(4, 2, seed=2), None


LAYER = frozenset({"layer"})
LORA = ("layer", "partly_float32")
PROBLEMS = (
    stack("dense", (3,), (2,), lambda: [layers.Dense(4, "tanh"), layers.Dense(2)]),
    stack("dense_no_bias", (3,), (2,), lambda: [layers.Dense(2, "tanh", use_bias=False)]),
    stack("dense_on_sequence", (4, 3), (4, 2), lambda: [layers.Dense(2, "tanh")]),
    stack("dense_on_grid", (2, 3, 3), (2, 3, 2), lambda: [layers.Dense(2, "tanh")]),
    stack(
        "einsum_dense",
        (4, 3),
        (4, 2, 2),
        lambda: [layers.EinsumDense("abc,cde->abde", (None, 2, 2), "tanh", bias_axes="de")],
    ),
    stack(
        "einsum_dense_mixes_positions",
        (4, 3),
        (5, 3),
        lambda: [layers.EinsumDense("btd,ts->bsd", (5, 3), activation="tanh")],
    ),
    stack("einsum_dense_vector", (3,), (2,), lambda: [layers.EinsumDense("bi,io->bo", 2)]),
    stack(
        "embedding",
        (3,),
        (3, 2),
        lambda: [layers.Embedding(6, 3), layers.Dense(2, "tanh")],
        x=lambda: whole(6, 4, 3, seed=1),
    ),
    stack(
        "embedding_repeated_ids",
        (5,),
        (2,),
        lambda: [layers.Embedding(3, 3), layers.Flatten(), layers.Dense(2, "tanh")],
        x=_repeated,
    ),
    stack(
        "embedding_mask_zero",
        (5,),
        (2,),
        lambda: [
            layers.Embedding(6, 3, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, "tanh"),
        ],
        x=_padded,
    ),
    Problem("reversible_embedding_tied", _reversible(True), _tokens, LAYER),
    Problem("reversible_embedding_untied", _reversible(False), _tokens, LAYER),
    Problem("reversible_embedding_cap", _reversible(True, logit_soft_cap=2.0), _tokens, LAYER),
    stack("lora_dense", (5,), (2,), _lora, tags=LORA),
    stack(
        "lora_embedding",
        (3,),
        (2,),
        _lora_embedding,
        tags=LORA,
        x=lambda: whole(6, 4, 3, seed=1),
    ),
    stack("lora_einsum_dense", (4, 5), (4, 3), _lora_einsum, tags=LORA),
    Problem(
        "dense_called_twice",
        _called_twice,
        lambda: (floats(4, 3, seed=1), floats(4, 3, seed=2), None),
        LAYER,
    ),
    Problem("dense_on_two_inputs", _called_on_two_inputs, _two_inputs, LAYER),
    Problem(
        "tied_transposed_kernel",
        _tied,
        lambda: (floats(4, 4, seed=1), floats(4, 4, seed=2), None),
        LAYER,
    ),
    stack("raw_weights", (3,), (2,), lambda: [RawWeights()]),
    stack("flattened_sequence", (4, 3), (4, 2), lambda: [FlatDense(2), layers.Dense(2)]),
)
