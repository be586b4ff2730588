"""The models that are measured, each with a batch of random data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A compiled model, and one batch for it."""

    model: keras.Model
    x: tf.Tensor
    y: tf.Tensor


def mlp(batch: int) -> Case:
    """784-512-512-10."""
    hidden = [layers.Dense(512, "relu"), layers.Dense(512, "relu"), layers.Dense(CLASSES)]
    return _classifier([keras.Input((784,)), *hidden], _floats(batch, 784))


def wide(batch: int) -> Case:
    """784-4096-4096-10: twenty million weights."""
    hidden = [layers.Dense(4096, "relu"), layers.Dense(4096, "relu"), layers.Dense(CLASSES)]
    return _classifier([keras.Input((784,)), *hidden], _floats(batch, 784))


def cnn(batch: int) -> Case:
    """Two convolutions with pooling, and a dense layer."""
    chain = [keras.Input((28, 28, 1))]
    for filters in (16, 32):
        chain += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    return _classifier([*chain, layers.Flatten(), layers.Dense(CLASSES)], _floats(batch, 28, 28, 1))


def lstm(batch: int) -> Case:
    """64 units over 28 steps. The plain step runs Keras' own loop over time."""
    chain = [keras.Input((28, 28)), layers.LSTM(64), layers.Dense(CLASSES)]
    return _classifier(chain, _floats(batch, 28, 28))


def transformer(batch: int) -> Case:
    """Two blocks of width 128 on 64 positions."""
    start = keras.Input((64,), dtype="int32")
    hidden = layers.Embedding(1000, 128)(start)
    for _ in range(2):
        normed = layers.LayerNormalization()(hidden)
        hidden = hidden + layers.MultiHeadAttention(4, 32)(normed, normed)
        normed = layers.LayerNormalization()(hidden)
        hidden = hidden + layers.Dense(128)(layers.Dense(256, "gelu")(normed))
    outputs = layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(hidden))
    words = np.random.default_rng(1).integers(0, 1000, (batch, 64)).astype("int32")
    return _case(keras.Model(start, outputs), tf.constant(words))


def resnet(batch: int) -> Case:
    """Three residual blocks of 16 filters with GroupNormalization, on 16 x 16 images."""
    start = keras.Input((16, 16, 3))
    hidden = layers.Conv2D(16, 3, padding="same")(start)
    for _ in range(3):
        inner = layers.Activation("relu")(layers.GroupNormalization(4)(hidden))
        hidden = hidden + layers.Conv2D(16, 3, padding="same")(inner)
    outputs = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(hidden))
    return _case(keras.Model(start, outputs), _floats(batch, 16, 16, 3))


class VAE(keras.Model):
    """Dense, 784-256-16-256-784, with its loss in `compute_loss`."""

    def __init__(self):
        super().__init__()
        self.encoder, self.code = layers.Dense(256, "relu"), layers.Dense(32)
        self.decoder, self.pixels = layers.Dense(256, "relu"), layers.Dense(784)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, images):
        mean, log_var = ops.split(self.code(self.encoder(images)), 2, axis=-1)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        latent = mean + ops.exp(0.5 * log_var) * noise
        return {"pixels": self.pixels(self.decoder(latent)), "mean": mean, "log_var": log_var}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        pixels = ops.sum(ops.square(y - y_pred["pixels"]), axis=-1)
        mean, log_var = y_pred["mean"], y_pred["log_var"]
        divergence = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - 1 - log_var, axis=-1)
        return ops.mean(pixels + divergence)


def vae(batch: int) -> Case:
    """A variational autoencoder."""
    model, x = VAE(), _floats(batch, 784)
    model(x)
    model.compile("adam")
    return Case(model, x, x)


def _classifier(chain: list, x: tf.Tensor) -> Case:
    return _case(keras.Sequential(chain), x)


def _case(model: keras.Model, x: tf.Tensor) -> Case:
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.random.default_rng(2).integers(0, CLASSES, x.shape[0])
    return Case(model, x, tf.constant(labels))


def _floats(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))


MODELS: dict[str, Callable[[int], Case]] = {
    "MLP": mlp,
    "CNN": cnn,
    "LSTM": lstm,
    "Transformer": transformer,
    "VAE": vae,
    "ResNet": resnet,
    "wide MLP": wide,
}
