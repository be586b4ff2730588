"""Ragged, sparse and string inputs in `fit`: trained as plain Keras trains, or refused in words."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.problems import floats

ROWS, BATCH = 6, 4  # a full batch and a partial one


class MeanOfRows(layers.Layer):
    """The mean over the ragged axis of scaled values."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

    def call(self, inputs):
        return tf.reduce_mean(inputs * self.scale, axis=1)[:, None]

    def compute_output_shape(self, shape):
        return (shape[0], 1)


def _ragged(cls) -> keras.Model:
    start = keras.Input((None,), ragged=True)
    return cls(start, layers.Dense(2)(MeanOfRows()(start)))


def _sparse(cls) -> keras.Model:
    start = keras.Input((3,), sparse=True)
    return cls(start, layers.Dense(2)(layers.Dense(4, "tanh")(start)))


def _strings(cls) -> keras.Model:
    start = keras.Input((3,), dtype="string")
    ids = layers.StringLookup(vocabulary=["a", "b", "c"])(start)
    return cls(start, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 2)(ids))))


def _rows(kind: str):
    if kind == "ragged":
        return tf.ragged.constant([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0], [1.0] * 4, [2.0], [0.5]])
    if kind == "sparse":
        values = floats(ROWS, 3, seed=1)
        values[:, 1] = 0
        return tf.sparse.from_dense(values)
    return tf.constant(
        [list("abc"), list("cc?"), list("baa"), list("aaa"), list("?bc"), list("cab")]
    )


MODELS = {"ragged": _ragged, "sparse": _sparse, "strings": _strings}
# The engines that stack samples say that they cannot stack these.
REFUSED = {(kind, engine) for kind in ("ragged", "sparse") for engine in ("vectorized", "jacobian")}

# Trained twice each, and like another that is not left out.
LONGER = {("strings", "loop"), ("strings", "jacobian"), ("sparse", "loop")}


def _fit(kind: str, per_sample) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = MODELS[kind](pg.PerGradModel if per_sample else keras.Model)
    options = {"per_sample": per_sample} if per_sample else {}
    model.compile(keras.optimizers.SGD(0.01), "mse", **options)
    data = tf.data.Dataset.from_tensor_slices((_rows(kind), floats(ROWS, 2, seed=2))).batch(BATCH)
    model.fit(data, shuffle=False, verbose=0)
    return model


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        pytest.param(kind, engine, marks=pytest.mark.slow if (kind, engine) in LONGER else ())
        for kind in MODELS
        for engine in ("loop", "vectorized", "jacobian")
    ],
)
def test_trained_as_plain_keras_or_refused(kind, engine):
    settings = pg.PerSample(engine, check="always", aggregator="mean")
    if (kind, engine) in REFUSED:
        with pytest.raises(pg.UnsupportedError, match=r"ragged or sparse.*engine='loop'.*Received"):
            _fit(kind, settings)
        return
    plain, measured = _fit(kind, None), _fit(kind, settings)
    assert measured.equivalence_report.equivalent
    assert measured.equivalence_report.max_relative_error < 1e-5
    for a, b in zip(plain.get_weights(), measured.get_weights(), strict=True):
        # float32, two steps of 0.01.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
