"""How the batch was made of its samples is found out, or refused; never guessed by accident."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import each_engine, expect_exact

ISOLATED = ("loop", "vectorized")


def masked_by_hand(y_true, y_pred):
    """The mean over the valid positions of the batch, reduced by the user."""
    losses = keras.losses.sparse_categorical_crossentropy(
        ops.maximum(y_true, 0), y_pred, from_logits=True
    )
    mask = ops.cast(ops.greater_equal(y_true, 0), losses.dtype)
    return ops.sum(losses * mask) / ops.sum(mask)


@pytest.mark.parametrize("engine", ISOLATED)
def test_losses_that_agree_by_accident_do_not_prove_a_mean(engine):
    """With a zero head every sample's loss is log 5, whatever its weight in the batch."""
    head = layers.Dense(5, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(8, "tanh"), head])
    model.compile("sgd", masked_by_hand)
    labels = np.random.default_rng(0).integers(0, 5, (4, 6))
    labels[0, 1:] = labels[1, 3:] = -1
    with pytest.raises(pg.SeparationError):
        pg.per_sample_gradients(model, floats(4, 6, 4), labels, engine=engine)


class Critic(keras.Model):
    """A sum over the batch whose values are all zero at the start."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(4, "tanh")
        self.head = layers.Dense(1, kernel_initializer="zeros")

    def call(self, inputs):
        return self.head(self.body(inputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(y * y_pred)


@pytest.mark.parametrize("engine", ISOLATED)
def test_a_sum_of_losses_that_are_zero_is_a_sum(engine):
    model, x, y = Critic(), floats(4, 3, seed=1), floats(4, 1, seed=2)
    model(x)
    model.compile("sgd")
    found = pg.per_sample_gradients(model, x, y, engine=engine).mean()
    for mean, batch in zip(found, oracle.batch_gradient(model, x, y, None), strict=True):
        np.testing.assert_allclose(mean, batch, rtol=1e-5, atol=1e-6)


class SumOfSquares(keras.Model):
    """A sum over the batch, reduced by hand."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(1)

    def call(self, inputs):
        return self.head(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(y - y_pred))


def test_a_sum_at_its_optimum_is_still_a_sum():
    model, x, y = SumOfSquares(), floats(16, 3, seed=1), floats(16, 1, seed=2)
    model(x)
    model.compile("sgd")
    best = np.linalg.lstsq(np.hstack([x, np.ones((16, 1), x.dtype)]), y, rcond=None)[0]
    model.set_weights([best[:3], best[3]])
    own = pg.per_sample_gradients(model, x, y, of="own").norms()
    contributions = pg.per_sample_gradients(model, x, y).norms()
    np.testing.assert_allclose(contributions, 16 * own, rtol=1e-5)


def test_the_mean_under_batch_statistics_is_not_applied_without_a_check():
    layer = layers.BatchNormalization(name="normalization")
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(4), layer, layers.Dense(2)])
    settings = pg.PerSample("vectorized", check="off", aggregator="mean")
    model.compile("sgd", "mse", per_sample=settings)
    with (
        pytest.warns(pg.EquivalenceWarning, match="normalization"),
        pytest.raises(pg.SeparationError, match="do not add up"),
    ):
        model.fit(floats(4, 3, seed=1), floats(4, 2, seed=2), verbose=0)


@pytest.mark.parametrize("engine", ["factored", "loop"])
def test_a_function_traced_before_xla_compiles_it_has_nan_in_all_answers(engine):
    """Its assertion, which has stopped it once, is dropped then."""

    def loss(y, y_pred):
        return tf.reduce_max(y_pred - y) + tf.reduce_mean(y_pred) ** 2

    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)
    batch = tf.constant(floats(3, 3, seed=1)), tf.constant(floats(3, 2, seed=2))

    @tf.function
    def inner(x, y):
        g = pg.per_sample_gradients(model, x, y, engine=engine)
        return g.norms(), g.mean(), g.sum()

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"contribution|neither"):
        inner(*batch)
    norms, *answers = tf.function(lambda x, y: inner(x, y), jit_compile=True)(*batch)
    assert np.isnan(norms).all()
    assert all(np.isnan(tf.linalg.global_norm(answer)) for answer in answers)


def _time_major(y_true, y_pred):
    """`[T, B]`: the samples on the second axis, the weights of time steps inside."""
    steps = ops.reshape(ops.arange(1.0, 4.0), (3, 1, 1))
    squares = ops.square(ops.transpose(y_true - y_pred, (1, 0, 2)))
    return ops.mean(squares * ops.cast(steps, squares.dtype), axis=-1)


OTHER_AXES = {
    "[B·T]": lambda y, p: ops.reshape(ops.square(y - p), (-1,)),
    "[T, B]": _time_major,
}


@each_engine
@pytest.mark.parametrize("way", ["eager", "graph"])
@pytest.mark.parametrize("loss", OTHER_AXES.values(), ids=list(OTHER_AXES))
def test_own_gradients_of_a_loss_whose_first_axis_is_not_that_of_the_samples(loss, way, engine):
    """A batch cannot be reduced sample by sample then; `factored` was wrong by a factor."""
    model = compiled(keras.Sequential([keras.Input((3, 2)), layers.Dense(2)]), loss)
    x, y = floats(4, 3, 2, seed=1), floats(4, 3, 2, seed=2)

    def ask(x, y):
        g = pg.per_sample_gradients(model, x, y, engine=engine, of="own")
        return list(g.materialize().values())

    found = (tf.function(ask) if way == "graph" else ask)(tf.constant(x), tf.constant(y))
    expect_exact([np.asarray(each) for each in found], oracle.own_gradients(model, x, y))
