"""What sample gradients are: one contract for all engines, and the factors they consist of."""

from keras_pergrad.gradients._blocks import Block, Blocks, Chunked
from keras_pergrad.gradients._factor import Factor, Materialized
from keras_pergrad.gradients._sample_gradients import SampleGradients

__all__ = ["Block", "Blocks", "Chunked", "Factor", "Materialized", "SampleGradients"]
