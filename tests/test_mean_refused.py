"""A mean of sample gradients that does not exist: told on the host, the weights left finite."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.problems import floats


def _square_of_mean(y, y_pred):
    return keras.ops.square(keras.ops.mean(y - y_pred))


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "way",
    [
        {},
        {"run_eagerly": True},
        {"steps_per_execution": 2},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=["graph", "eager", "steps", "xla"],
)
@pytest.mark.parametrize(
    ("loss", "check", "error"),
    [
        (keras.losses.Dice(), "off", pg.SeparationError),
        (_square_of_mean, "off", pg.SeparationError),
        (_square_of_mean, "record", pg.SeparationError),
        (_square_of_mean, "raise", pg.EquivalenceError),
    ],
    ids=["dice-off", "opaque-off", "opaque-record", "opaque-raise"],
)
def test_a_mean_that_does_not_exist_is_told_and_leaves_the_weights_finite(way, loss, check, error):
    """Under XLA no assertion stops the step: the batch gradient is applied, and the host raises."""
    settings = pg.PerSample(
        "vectorized",
        check="off" if check == "off" else "first",
        on_failure="raise" if check == "off" else check,
        aggregator="mean",
    )
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), loss, per_sample=settings, **way)
    with pytest.raises(error, match="Received" if error is pg.SeparationError else "is NOT"):
        model.fit(floats(8, 3, seed=1), floats(8, 2, seed=2) > 0, batch_size=4, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_a_loss_and_a_gradient_of_exactly_zero_have_a_mean():
    """Whatever the samples are multiplied by, they add up: no factor is wrong."""

    class Solved(pg.PerGradSequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y - y_pred))

    dense = layers.Dense(2, kernel_initializer="zeros")
    model = Solved([keras.Input((3,)), dense])
    settings = pg.PerSample(check="always", aggregator="mean")
    model.compile(keras.optimizers.SGD(0.1), per_sample=settings)
    x, y = floats(4, 3, seed=1), np.zeros((4, 2), "float32")
    model.fit(x, y, verbose=0)
    assert not np.any(pg.per_sample_gradients(model, x, y).norms())
    assert not any(np.any(weight) for weight in model.get_weights())


@pytest.mark.parametrize("loss", [keras.losses.Dice(), _square_of_mean], ids=["dice", "opaque"])
def test_shares_of_a_loss_without_contributions_are_told(loss):
    """They would add up to the batch gradient, whatever they are: so nothing else would tell."""
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2, "sigmoid")])
    settings = pg.PerSample("factored", check="off", aggregator="mean")
    model.compile(keras.optimizers.SGD(0.1), loss, per_sample=settings)
    with pytest.raises(pg.SeparationError, match="Received"):
        model.fit(floats(8, 3, seed=1), floats(8, 2, seed=2) > 0, batch_size=4, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
