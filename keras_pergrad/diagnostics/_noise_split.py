"""Two sources of noise in a gradient: which samples were drawn, and what the model drew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, Engine, get_engine, sample_gradients
from keras_pergrad.errors import DataError
from keras_pergrad.gradients import SampleGradients
from keras_pergrad.runs import Batch, start


@dataclass(frozen=True)
class NoiseSplit:
    """The variance of sample gradients, added up over all weights, by where it comes from.

    Attributes:
        within: of the gradients of one sample over draws of the model's noise (dropout, a VAE's
            latent noise), on average.
        between: of the samples' mean gradients: what another choice of data changes. The estimate
            is a difference, and may be negative where `within` is much larger.
        size: the number of samples.
    """

    within: float
    between: float
    size: int

    @property
    def share_within(self) -> float:
        """The part of the variance that the model's own noise makes."""
        total = self.within + self.between
        return self.within / total if total > 0 else float("nan")


@tf.autograph.experimental.do_not_convert
def noise_split(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    engine: str | Engine = "auto",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> NoiseSplit:
    """Splits the noise of a batch's gradient into the model's own and that of the data.

    The batch is run twice with other draws, of which `½ mean ‖g_i⁽¹⁾ - g_i⁽²⁾‖²` is the variance
    within samples; the trace of the covariance over samples, `B/(B-1) (m2 - n2)`, has both, and the
    rest is the variance between samples (the law of total variance). No weight, state or seed of
    the model is touched: the second draw is made with seeds of its own, the same each time.

    Args:
        model: any built and compiled Keras model.
        x, y, sample_weight: one batch of at least two samples, as `fit` takes it.
        engine: whose sample gradients, as in `per_sample_gradients`.
        memory_budget: bytes that one chunk of samples may need.

    Raises:
        DataError: a batch of less than two samples.
        PerGradError: the model cannot be used; the message says why.

    Example:
        >>> import keras, numpy as np, keras_pergrad as pg
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> pg.noise_split(model, np.eye(3), np.ones((3, 1))).within
        0.0
    """
    batch = Batch.of(x, y, sample_weight)
    if int(batch.size) < 2:
        raise DataError(
            f"Noise between samples takes two of them. Received: a batch of {int(batch.size)}."
        )
    runs = [start(model, batch, of="contribution", other_draws=other) for other in (False, True)]
    chosen = get_engine(engine)
    first, second = (sample_gradients(run, chosen, memory_budget) for run in runs)
    within = float(tf.reduce_mean(_squared_distances(first, second))) / 2
    total = (_trace(first) + _trace(second)) / 2
    return NoiseSplit(within, total - within, int(batch.size))


def _squared_distances(first: SampleGradients, second: SampleGradients) -> tf.Tensor:
    """`‖g_i⁽¹⁾ - g_i⁽²⁾‖²`, `[B]`."""
    size = int(first.num_samples)
    inner = [_inner(first, second, k) for k in range(size)]
    squares = [tf.cast(g.squared_norms(), tf.float64) for g in (first, second)]
    return tf.maximum(squares[0] + squares[1] - 2 * tf.stack(inner), 0)


def _inner(first: SampleGradients, second: SampleGradients, k: int) -> tf.Tensor:
    """`⟨g_k⁽¹⁾, g_k⁽²⁾⟩`."""
    blocks = [g.blocks.at(tf.constant([k])) for g in (first, second)]
    pairs = zip(*(block.factors for block in blocks), strict=True)
    return tf.add_n([tf.cast(one.gram(other)[0, 0], tf.float64) for one, other in pairs])


def _trace(g: SampleGradients) -> float:
    size = int(g.num_samples)
    m2 = float(tf.reduce_mean(tf.cast(g.squared_norms(), tf.float64)))
    n2 = sum(float(tf.reduce_sum(tf.cast(mean, tf.float64) ** 2)) for mean in g.means())
    return size / (size - 1) * (m2 - n2)
