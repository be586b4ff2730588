"""Noise of every kind is replayed sample by sample, or refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import expect_exact, materialized
from tests.twins import BATCH, data

slow = pytest.mark.slow


class Noise(layers.Layer):
    """Scales by noise from `draw(shape, seeds)`; the scale is a weight of its own."""

    def __init__(self, draw, **options):
        super().__init__(**options)
        self.draw = draw
        self.seeds = keras.random.SeedGenerator(3)

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        noise = ops.cast(self.draw(ops.shape(inputs), self.seeds), inputs.dtype)
        return inputs * (1.0 + self.scale * noise)


DRAWS = {
    "stateless_normal": lambda shape, seeds: tf.random.stateless_normal(shape, [3, 4]),
    "normal": lambda shape, seeds: keras.random.normal(shape, seed=seeds),
    "uniform": lambda shape, seeds: keras.random.uniform(shape, seed=seeds),
    "truncated_normal": lambda shape, seeds: keras.random.truncated_normal(shape, seed=seeds),
    "gamma": lambda shape, seeds: keras.random.gamma(shape, 2.0, seed=seeds),
    "beta": lambda shape, seeds: keras.random.beta(shape, 2.0, 3.0, seed=seeds),
    "binomial": lambda shape, seeds: keras.random.binomial(shape, 5.0, 0.4, seed=seeds),
    "randint": lambda shape, seeds: keras.random.randint(shape, 0, 5, seed=seeds),
    "dropout": lambda shape, seeds: keras.random.dropout(tf.ones(shape), 0.4, seed=seeds),
}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("stateless_normal", "uniform", "dropout")
        else pytest.param(name, marks=slow)
        for name in DRAWS
    ],
)
def test_noise_is_replayed_exactly(name):
    model = compiled(
        keras.Sequential([keras.Input((3,)), layers.Dense(4), Noise(DRAWS[name]), layers.Dense(2)])
    )
    same = np.repeat(floats(1, 3, seed=1), 5, axis=0), np.repeat(floats(1, 2, seed=2), 5, axis=0)
    by_loop = materialized(model, *same, engine="loop", of="own")
    vectorized = pg.per_sample_gradients(model, *same, engine="vectorized", of="own")
    expect_exact([np.asarray(v) for v in vectorized.materialize().values()], by_loop)
    # The oracle draws the batch's noise in plain Keras: both engines could be wrong alike.
    batch = oracle.batch_gradient(model, *same)
    expect_exact([np.asarray(mean) for mean in vectorized.mean()], batch)
    assert any(np.any(g != g[:1]) for g in by_loop), "equal samples drew equal noise"
    assert pg.check_equivalence(model, *same).equivalent


def _noise_in_a_loop(inputs):
    return tf.while_loop(
        lambda k, v: k < tf.cast(tf.reduce_sum(tf.ones([3])), tf.int32),
        lambda k, v: (k + 1, v + keras.random.normal(tf.shape(v), seed=SEEDS[0])),
        (tf.constant(0), inputs),
    )[1]


SEEDS: list = [None]


@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian"])
def test_noise_drawn_inside_a_loop_is_refused(engine):
    model = pg.PerGradSequential(
        [keras.Input((3,)), layers.Dense(3), layers.Lambda(_noise_in_a_loop), layers.Dense(2)]
    )
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine=engine))
    x, y, _ = data()
    with pytest.raises(pg.UnsupportedError, match="inside a loop"):
        model.fit(x, y, batch_size=BATCH, verbose=0)
