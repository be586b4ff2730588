"""Two parts of a loss that pull at the same weights, as a VAE's reconstruction and its KL term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.engines import Engine, per_sample_gradients
from keras_pergrad.errors import PerGradError
from keras_pergrad.gradients import SampleGradients

PartOfLoss = Callable[[Any, Any, Any], tf.Tensor]


@dataclass(frozen=True)
class LossConflict:
    """The gradients of two parts of a loss, sample by sample.

    Attributes:
        first, second: norms of the two gradients of each sample, `[B]`.
        cosine: of the two, `[B]`; below 0 they pull apart. NaN where one is zero.
        by_layer: layer → mean norm of the first, of the second, and mean cosine.
    """

    first: np.ndarray
    second: np.ndarray
    cosine: np.ndarray
    by_layer: dict[str, tuple[float, float, float]]

    @property
    def in_conflict(self) -> float:
        """The share of samples whose two gradients pull apart, a cosine below 0."""
        return float(np.mean(self.cosine[np.isfinite(self.cosine)] < 0))

    def ratio(self, layers: str = "") -> float:
        """`mean ‖second‖ / mean ‖first‖` in the layers whose path has `layers` in it.

        For the encoder of a VAE with the KL term second: near 1 the two balance; far above 1 the
        KL term alone shapes the encoder, which is how a posterior collapses.

        Raises:
            PerGradError: no layer's path has that in it.
        """
        found = [numbers for path, numbers in self.by_layer.items() if layers in path]
        if not found:
            raise PerGradError(
                f"No layer's path has that in it. There are: {', '.join(self.by_layer)}. "
                f"Received: layers={layers!r}."
            )
        first, second = (sum(each[k] ** 2 for each in found) ** 0.5 for k in (0, 1))
        return second / first if first else float("inf")


def loss_conflict(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    first: PartOfLoss,
    second: PartOfLoss,
    engine: str | Engine = "auto",
) -> LossConflict:
    """Compares the gradients of two parts of a model's loss, with the same noise.

    Args:
        model: any built model.
        x, y: one batch, as `fit` takes it.
        first, second: from `(x, y, y_pred)` to that part of each sample's loss, `[B]`.
        engine: whose sample gradients, as in `per_sample_gradients`.

    Raises:
        PerGradError: the model or the batch cannot be used; the message says why.

    Example:
        >>> import keras, numpy as np, keras_pergrad as pg
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> found = pg.loss_conflict(
        ...     model, np.eye(3), np.ones((3, 1)),
        ...     first=lambda x, y, y_pred: keras.ops.sum((y - y_pred) ** 2, axis=1),
        ...     second=lambda x, y, y_pred: keras.ops.sum(y_pred**2, axis=1),
        ... )
        >>> found.cosine.shape
        (3,)
    """
    parts = [
        per_sample_gradients(_PartOf(model, part), x, y, engine=engine) for part in (first, second)
    ]
    norms = [_by_layer(g.norms("layer")) for g in parts]
    inner = _inner_by_layer(*parts)
    layers = {
        layer: (
            float(norms[0][layer].mean()),
            float(norms[1][layer].mean()),
            _mean(_cosine(inner[layer], norms[0][layer], norms[1][layer])),
        )
        for layer in inner
    }
    one, other = (np.asarray(g.norms(), float) for g in parts)
    cosine = _cosine(np.sum(list(inner.values()), axis=0), one, other)
    return LossConflict(one, other, cosine, layers)


class _PartOf(keras.Model):
    """A model with one part of its loss in the place of the whole; the weights are the model's."""

    def __init__(self, model: keras.Model, part: PartOfLoss):
        super().__init__(name=f"{model.name}_part")
        self._of, self._part = model, part
        self.built = True
        self.compile()

    def call(self, inputs: Any, training: bool = True) -> Any:
        return self._of(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(self._part(x, y, y_pred))


def _inner_by_layer(first: SampleGradients, second: SampleGradients) -> dict[str, np.ndarray]:
    """`⟨first_i, second_i⟩`, layer → `[B]`."""
    found: dict[str, np.ndarray] = {}
    size = int(first.num_samples)
    for k in range(size):
        blocks = [g.blocks.at(tf.constant([k])) for g in (first, second)]
        pairs = zip(first.variables, *(block.factors for block in blocks), strict=True)
        for path, one, other in pairs:
            row = found.setdefault(path.rpartition("/")[0], np.zeros(size))
            row[k] += float(one.gram(other)[0, 0])
    return found


def _by_layer(numbers: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {layer: np.asarray(each, float) for layer, each in numbers.items()}


def _cosine(inner: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    sizes = first * second
    return np.where(sizes > 0, inner / np.where(sizes > 0, sizes, 1.0), np.nan)


def _mean(numbers: np.ndarray) -> float:
    known = numbers[np.isfinite(numbers)]
    return float(known.mean()) if len(known) else float("nan")
