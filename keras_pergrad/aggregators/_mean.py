"""The aggregator contract, and the mean."""

from __future__ import annotations

import abc

import tensorflow as tf

from keras_pergrad.gradients import SampleGradients


class Aggregator(abc.ABC):
    """A way to make one gradient of the contributions of the samples."""

    @abc.abstractmethod
    def aggregate(self, g: SampleGradients) -> list[tf.Tensor]:
        """One tensor a variable, as the optimizer applies it, the batch term included."""


class Mean(Aggregator):
    """The mean of the contributions plus the batch term: the batch gradient, by another path."""

    def aggregate(self, g: SampleGradients) -> list[tf.Tensor]:
        return [mean + term for mean, term in zip(g.mean(), g.batch_term, strict=True)]
