"""The same model as plain Keras and with sample gradients measured, trained and compared."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

import keras_pergrad as pg
from tests import oracle
from tests.problems import floats

Make = Callable[[type, type], keras.Model]
BATCH, ROWS = 4, 14  # 14 rows: three full batches and a partial one of 2


def data():
    """Inputs, targets, sample weights."""
    weights = np.linspace(0.5, 2.0, ROWS).astype(keras.config.floatx())
    return floats(ROWS, 3, seed=1), floats(ROWS, 2, seed=2), weights


def dense(functional: type, sequential: type) -> keras.Model:
    """A plain stack."""
    return sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])


def sampling(functional: type, sequential: type) -> keras.Model:
    """BatchNormalization, dropout and sampling noise."""
    return _noisy(functional)


def noisy(functional: type, sequential: type) -> keras.Model:
    """The same with regularizers of weights and of activities."""
    return _noisy(functional, kernel_regularizer="l2", activity_regularizer="l1")


def _noisy(functional: type, **options) -> keras.Model:
    start = keras.Input((3,))
    hidden = layers.Dense(6, "tanh", **options)(start)
    hidden = layers.Dropout(0.3)(layers.BatchNormalization()(hidden))
    hidden = layers.GaussianNoise(0.2)(hidden)
    return functional(start, layers.Dense(2)(hidden))


def trained(make: Make, per_sample, *, fit=None, seed=0, **compile_options):
    """The model after `fit`, and its history. `fit(model)` replaces the default call."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    if per_sample is None:
        model = make(keras.Model, keras.Sequential)
        compile_options.setdefault("loss", "mse")
        model.compile(**compile_options)
    else:
        model = make(pg.PerGradModel, pg.PerGradSequential)
        compile_options.setdefault("loss", "mse")
        model.compile(per_sample=per_sample if per_sample != "off" else None, **compile_options)
    return model, (fit or _fit)(model).history


def _fit(model):
    x, y, _ = data()
    return model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)


def expect_bit_equal(plain, other) -> None:
    """Weights, statistics, seeds, optimizer, metrics and history, to the last bit."""
    (model, history), (measured, measured_history) = plain, other
    assert list(history) == list(measured_history)
    for name in history:
        np.testing.assert_array_equal(history[name], measured_history[name], err_msg=name)
    left, right = oracle.state_of(model), oracle.state_of(measured)
    assert len(left) == len(right)
    for variable, a, b in zip(oracle.every_variable(model), left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=variable.path)


def expect_close(plain, other, rtol: float) -> None:
    """The same to rounding, in units of the largest weight."""
    (model, history), (measured, measured_history) = plain, other
    assert list(history) == list(measured_history)
    for name in history:
        np.testing.assert_allclose(history[name], measured_history[name], rtol=10 * rtol)
    scale = max(np.abs(w).max() for w in model.get_weights())
    for a, b in zip(model.get_weights(), measured.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale)
