"""What sample gradients are: one contract for all engines, and the factors they consist of."""

from keras_pergrad.gradients._blocks import Block, Blocks, Held, Mapped, Total
from keras_pergrad.gradients._chunked import Chunked
from keras_pergrad.gradients._convolved import Convolved
from keras_pergrad.gradients._factor import (
    Factor,
    projected,
    projected_zeros,
    rows_of,
    tensors_of,
    wide,
    with_tensors,
)
from keras_pergrad.gradients._gathered import Gathered
from keras_pergrad.gradients._kept import Kept, beside
from keras_pergrad.gradients._materialized import Materialized
from keras_pergrad.gradients._nothing import Nothing
from keras_pergrad.gradients._product import Product
from keras_pergrad.gradients._sample_gradients import By, SampleGradients
from keras_pergrad.gradients._scaled import Scaled, times
from keras_pergrad.gradients._summed import Summed, summed
from keras_pergrad.gradients._viewed import View, Viewed

__all__ = [
    "Block",
    "Blocks",
    "By",
    "Chunked",
    "Convolved",
    "Factor",
    "Gathered",
    "Held",
    "Kept",
    "Mapped",
    "Materialized",
    "Nothing",
    "Product",
    "SampleGradients",
    "Scaled",
    "Summed",
    "Total",
    "View",
    "Viewed",
    "beside",
    "projected",
    "projected_zeros",
    "rows_of",
    "summed",
    "tensors_of",
    "times",
    "wide",
    "with_tensors",
]
