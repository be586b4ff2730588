"""A problem made concrete: a model at a generic point, in one dtype, with its batch."""

import zlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tests.problems import Problem

# The largest entry over all variables and samples is the unit. float64: 1e-10 leaves six digits
# for the different order of sums. float32: 1e-5 is about 100 roundings of 1.2e-7.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
# Where Keras keeps to float32 in a float64 model (LoRA weights, CTC): one rounding at the end.
PARTLY_FLOAT32 = 1e-6


def tolerance_of(problem: Problem, dtype: str) -> float:
    """The tolerance of a problem in a dtype, relative to the largest entry."""
    if dtype == "float64" and "partly_float32" in problem.tags:
        return PARTLY_FLOAT32
    return TOLERANCE[dtype]


@dataclass(frozen=True)
class Case:
    """A compiled model and one batch."""

    model: keras.Model
    x: Any
    y: Any
    sample_weight: Any

    @property
    def batch(self) -> tuple[Any, Any, Any]:
        return self.x, self.y, self.sample_weight


def set_dtype(dtype: str) -> None:
    """Forget names and seeds, and compute in `dtype` from here on.

    `free_memory=False`: a full garbage collection per test would take longer than the test.
    """
    keras.utils.clear_session(free_memory=False)
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)


def make_case(problem: Problem) -> Case:
    """Build in the dtype in force. The seed depends on the name, not on what ran before."""
    keras.utils.set_random_seed(zlib.crc32(problem.name.encode()) % 1000)
    model = problem.build()
    nudge(model)
    return Case(model, *problem.batch())


def nudge(model: keras.Model) -> None:
    """Move every trainable weight off zeros and ones, where wrong gradients can look right."""
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        step = 0.1 * rng.normal(size=variable.shape)
        variable.assign(variable.numpy() + step.astype(variable.dtype))
