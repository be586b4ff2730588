"""Sample gradients as the package gives them, in NumPy, and compared with what was expected."""

import numpy as np
import pytest

import keras_pergrad as pg
from tests import oracle
from tests.cases import TOLERANCE

ENGINES = ("loop", "vectorized", "jacobian", "factored")
each_engine = pytest.mark.parametrize("engine", ENGINES)


def materialized(model, *batch, **options) -> oracle.Gradients:
    """[B, *shape] per variable; the options are those of `per_sample_gradients`."""
    found = pg.per_sample_gradients(model, *batch, **options).materialize()
    return [np.asarray(value) for value in found.values()]


def relative_error(found: oracle.Gradients, expected: oracle.Gradients) -> float:
    """The largest difference, in units of the largest entry of all."""
    return oracle.largest_difference(found, expected) / oracle.global_norm(expected)


def expect_exact(found: oracle.Gradients, expected: oracle.Gradients, dtype="float32") -> None:
    """Fail unless the two agree to rounding."""
    error = relative_error(found, expected)
    assert error <= TOLERANCE[dtype], f"relative error {error:.2e}"
