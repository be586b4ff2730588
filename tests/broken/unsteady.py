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
}
