"""How sample gradients are computed: one contract, one file an engine."""

from keras_pergrad.engines._alone import why_not_alone
from keras_pergrad.engines._api import (
    DEFAULT_MEMORY_BUDGET,
    expect_memory_budget,
    get_engine,
    per_sample_gradients,
    sample_gradients,
    unique_paths,
)
from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._factored import Factored
from keras_pergrad.engines._jacobian import Jacobian
from keras_pergrad.engines._loop import Loop, one_by_one
from keras_pergrad.engines._meetings import Meeting, PrimeTrace
from keras_pergrad.engines._one_trace import Alone, in_turn
from keras_pergrad.engines._remembered import Remembered
from keras_pergrad.engines._separation import Separation
from keras_pergrad.engines._trace import gist, refusing
from keras_pergrad.engines._vectorized import Vectorized

__all__ = [
    "DEFAULT_MEMORY_BUDGET",
    "Alone",
    "Engine",
    "Factored",
    "Jacobian",
    "Loop",
    "Meeting",
    "PrimeTrace",
    "Remembered",
    "Separation",
    "Vectorized",
    "expect_memory_budget",
    "get_engine",
    "gist",
    "in_turn",
    "one_by_one",
    "per_sample_gradients",
    "refusing",
    "sample_gradients",
    "unique_paths",
    "why_not_alone",
]
