"""Sample gradients as they would be without sample weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.gradients import By, SampleGradients
from keras_pergrad.runs import Run

Numbers = Any  # `[B]`, or a dict of those


def why_weights_stay(run: Run, *, interacts: bool) -> str:
    """Why `g_i/w_i` would not be what a sample has without weights; empty if it is.

    Args:
        run: the run, of a batch with weights.
        interacts: whether samples meet in the model.
    """
    weight = run.batch.sample_weight
    if not isinstance(weight, tf.Tensor) or weight.shape[1:].num_elements() != 1:
        return "they are not one number a sample, or come for several outputs"
    if not all(run.free_terms):
        return "a term of `add_loss`, or an activity regularizer, has none"
    if run.is_opaque:
        return "the loss is reduced where Keras cannot be asked what weights do"
    losses = _keras.loss_objects(run.model)
    if any(getattr(each, "reduction", None) == "mean_with_sample_weight" for each in losses):
        return "the loss divides by their sum"
    if interacts:
        return "samples meet in the model, so that each gradient has the weights of others in it"
    return ""


class Unweighted:
    """`g_i/w_i`, which the primitives of a step are made of as of a `SampleGradients`.

    A sample of weight 0 has no gradient that could be told: zeros are put in its place.

    Args:
        seen: `g_i`, which have the weights.
        weights: `w_i`, `[B]`.
    """

    def __init__(self, seen: SampleGradients, weights: tf.Tensor):
        self._seen = seen
        self._inverse = tf.math.reciprocal_no_nan(tf.cast(weights, tf.float64))

    @property
    def num_samples(self) -> int | tf.Tensor:
        """The number of samples."""
        return self._seen.num_samples

    def squared_norms(self, by: By = "model") -> Numbers:
        """As of `SampleGradients`; so are the others."""
        return self._times(self._seen.squared_norms(by), 2)

    def norms(self, by: By = "model") -> Numbers:
        return tf.nest.map_structure(tf.sqrt, self.squared_norms(by))

    def dot(self, vectors: Sequence[tf.Tensor], by: By = "model") -> Numbers:
        return self._times(self._seen.dot(vectors, by))

    def projections(self, by: By = "model") -> Numbers:
        return self.dot(self.means(), by)

    def sum(self, weights: tf.Tensor | None = None) -> list[tf.Tensor]:
        if weights is None:
            return self._seen.sum(self._inverse)
        return self._seen.sum(self._inverse * tf.cast(weights, tf.float64))

    def means(self) -> list[tf.Tensor]:
        count = tf.maximum(self.num_samples, 1)
        return [total / tf.cast(count, total.dtype) for total in self.sum()]

    def gram(self, by: By = "model") -> Numbers:
        both = self._inverse[:, None] * self._inverse[None, :]
        return tf.nest.map_structure(
            lambda each: each * tf.cast(both, each.dtype), self._seen.gram(by)
        )

    def second_moment(self) -> list[tf.Tensor]:
        """NaN: sums of squares are kept of all samples alike."""
        like = self._seen.batch_term
        return [tf.fill(each.shape, tf.cast(float("nan"), each.dtype)) for each in like]

    def _times(self, numbers: Numbers, power: int = 1) -> Numbers:
        """Numbers of each sample, on their last axis, times its `1/w_i` to some power."""
        return tf.nest.map_structure(
            lambda each: each * tf.cast(self._inverse**power, each.dtype), numbers
        )
