"""The model's own noise apart from the data's, and two parts of a loss compared."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import floats


class Toy(keras.Model):
    """`ℓ = ½(μ + e^ρ ε - x)²`, whose variances are known."""

    def __init__(self, mu, rho):
        super().__init__()
        self.mu = self.add_weight(shape=(1,), name="mu")
        self.rho = self.add_weight(shape=(1,), name="rho")
        self.mu.assign([mu])
        self.rho.assign([rho])
        self.seeds = keras.random.SeedGenerator(3)
        self.built = True

    def call(self, x):
        return self.mu + ops.exp(self.rho) * keras.random.normal(ops.shape(x), seed=self.seeds)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(0.5 * (y_pred - x) ** 2)


@pytest.mark.usefixtures("float64")
def test_the_toy_with_latent_noise():
    """Within `s² + (d² + τ²)s² + 2s⁴`, between `τ²`, for `x ~ N(a, τ²)`, `s = e^ρ`, `d = μ - a`."""
    mu, rho, a, tau, size = 0.7, -0.3, 0.2, 1.3, 500
    rng, s, d = np.random.default_rng(0), np.exp(rho), mu - a
    model = Toy(mu, rho)
    model.compile("sgd")
    split = pg.noise_split(model, rng.normal(a, tau, size=(size, 1)))
    within = s**2 + (d**2 + tau**2) * s**2 + 2 * s**4
    # Five standard errors, of how the same estimates scatter for as many samples.
    errors = np.std([_simulated(rng, mu, s, a, tau, size) for _ in range(200)], axis=0)
    assert split.within == pytest.approx(within, abs=5 * errors[0])
    assert split.between == pytest.approx(tau**2, abs=5 * errors[1])
    assert errors[0] < 0.2 * within and errors[1] < 0.4 * tau**2


def _simulated(rng, mu, s, a, tau, size) -> tuple[float, float]:
    x = rng.normal(a, tau, size=size)
    draws = rng.normal(size=(2, size))
    residual = mu + s * draws - x
    g = np.stack([residual, residual * s * draws], axis=-1)
    within = np.mean(np.sum((g[0] - g[1]) ** 2, axis=-1)) / 2
    total = np.mean([np.trace(np.cov(each.T)) for each in g])
    return within, total - within


def _noisy() -> keras.Model:
    chain = [keras.Input((3,)), layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(2)]
    model = keras.Sequential(chain)
    model.compile("sgd", "mse")
    return model


def test_nothing_of_the_model_is_touched_and_the_answer_is_the_same_again():
    model, x, y = _noisy(), floats(16, 3, seed=1), floats(16, 2, seed=2)
    before = oracle.state_of(model)
    first, second = pg.noise_split(model, x, y), pg.noise_split(model, x, y)
    assert first == second and first.within > 0 and first.share_within > 0
    for one, other in zip(before, oracle.state_of(model), strict=True):
        np.testing.assert_array_equal(one, other)


class Shaken(keras.Layer):
    """Draws past Keras."""

    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)


def test_noise_past_keras_is_drawn_anew():
    model = keras.Sequential([keras.Input((3,)), Shaken(), layers.Dense(2)])
    model.compile("sgd", "mse")
    assert pg.noise_split(model, floats(8, 3), floats(8, 2)).within > 0


def test_a_model_without_noise_has_none_within():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    split = pg.noise_split(model, floats(8, 3), floats(8, 2))
    # float32: two equal gradients, of norms of about 1, and their inner product.
    assert split.within < 1e-5 * split.between and split.share_within < 1e-5


def test_one_sample_is_too_few():
    with pytest.raises(pg.DataError, match=r"takes two of them.*Received: a batch of 1\."):
        pg.noise_split(_noisy(), floats(1, 3), floats(1, 2))


def _fits(x, y, y_pred):
    return ops.sum((y - y_pred) ** 2, axis=1)


def _is_small(x, y, y_pred):
    return ops.sum(ops.abs(y_pred), axis=1)


@pytest.mark.usefixtures("float64")
def test_two_parts_are_compared_by_definition():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    x, y = floats(5, 3, seed=1), floats(5, 2, seed=2)
    found = pg.loss_conflict(model, x, y, first=_fits, second=_is_small)
    for k in range(5):
        one, other = (_gradient(model, p, x[k : k + 1], y[k : k + 1]) for p in (_fits, _is_small))
        norms = np.linalg.norm(one), np.linalg.norm(other)
        np.testing.assert_allclose((found.first[k], found.second[k]), norms, rtol=1e-9)
        np.testing.assert_allclose(found.cosine[k], one @ other / np.prod(norms), rtol=1e-9)
    assert found.in_conflict == np.mean(found.cosine < 0)
    assert set(found.by_layer) == {layer.path for layer in model.layers}


def _gradient(model, part, x, y) -> np.ndarray:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(part(x, y, model(x)))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return np.concatenate([np.ravel(each) for each in gradients])


def test_a_layer_that_is_not_there_is_told():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    found = pg.loss_conflict(model, floats(4, 3), floats(4, 2), first=_fits, second=_is_small)
    with pytest.raises(pg.PerGradError, match=r"There are: .*dense.*Received: layers='encoder'"):
        found.ratio("encoder")


@pytest.mark.usefixtures("float64")
def test_norms_of_a_softmax_layer_with_bias():
    """`‖g_i‖ = ‖softmax - onehot‖ √(1 + ‖x_i‖²)`, seen by a monitor."""
    model = pg.PerGradSequential([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = floats(6, 4, seed=1), np.arange(6) % 3
    away = ops.convert_to_numpy(ops.softmax(model(x))) - np.eye(3)[y]
    norms = np.linalg.norm(away, axis=1) * np.sqrt(1 + np.sum(x**2, axis=1))
    monitor = pg.callbacks.GradientMonitor(every=1)
    model.fit(x, y, batch_size=6, verbose=0, callbacks=[monitor])
    values = monitor.records[0].values
    assert values["grad_norm_max"] == pytest.approx(norms.max(), rel=1e-9)
    assert values["grad_norm_mean"] == pytest.approx(norms.mean(), rel=1e-9)
