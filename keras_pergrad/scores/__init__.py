"""Scores of a whole data set at a model's weights, one row a sample, outside of training."""

from keras_pergrad.diagnostics import Scores
from keras_pergrad.scores._api import score_dataset
from keras_pergrad.scores._mean_gradient import MeanGradient
from keras_pergrad.scores._traced import How

__all__ = ["How", "MeanGradient", "Scores", "score_dataset"]
