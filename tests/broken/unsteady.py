"""NaN, and noise that cannot be replayed."""

import numpy as np
from keras import ops

from tests.broken.base import Broken, chain, dense, mixing, numbers


def _nan_row() -> tuple:
    x, y, _ = numbers(5)()
    x[3] = np.nan
    return x, y, None


def unsteady(x):
    import tensorflow as tf

    noise = tf.numpy_function(lambda: np.float32(np.random.default_rng().normal()), [], "float32")
    return x + ops.cast(tf.reshape(noise, []), x.dtype)


def shaken(y, y_pred):
    """Times a number that NumPy draws anew in each call."""
    return ops.mean((y - y_pred) ** 2, axis=-1) * float(1 + np.random.default_rng().uniform())


def of_positives(y, y_pred):
    """The mean over the positive targets of the batch, of which some samples have none."""
    positive = ops.cast(y > 0.5, y_pred.dtype)
    return ops.sum(positive * (y - y_pred) ** 2) / ops.sum(positive)


UNSTEADY: dict[str, Broken] = {
    "NaN in the data": Broken(chain((5,), dense()), _nan_row, (("non_finite", "the batch"),)),
    "log of zero": Broken(
        mixing(lambda x: ops.log(ops.relu(x))), numbers(5), (("non_finite", "mixer"),)
    ),
    "slope of a root at zero": Broken(
        mixing(lambda x: x + ops.sqrt(ops.relu(x) * 0.0 * x[:, :1])),
        numbers(5),
        (("non_finite", "dense"),),
    ),
    "noise of NumPy": Broken(
        mixing(unsteady), numbers(5), (("randomness", "mixer"),), engine="loop"
    ),
    "noise of NumPy in the loss": Broken(
        chain((5,), dense(), loss=lambda: shaken), numbers(5), (("randomness", "shaken"),)
    ),
    "a sample alone divides by zero": Broken(
        chain((5,), dense(), loss=lambda: of_positives), numbers(5), (("non_finite", "the loss"),)
    ),
}
