"""Random architectures: the factored engine is equal to the loop, weight by weight.

`pytest -m fuzz` runs five hundred; the default run thirty. A failure prints its recipe.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import keras_pergrad as pg
from tests import oracle
from tests.architectures import architectures, build
from tests.cases import TOLERANCE, nudge, set_dtype

# Keras says so where a mask ends; the loss then counts every position.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not support masking:UserWarning")

# Shrinking would build hundreds of models more: the recipe is short enough to read as it is.
QUICK = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _expect_equal_to_the_loop(recipe) -> None:
    set_dtype("float64")
    model, batch = build(recipe)
    nudge(model)
    by_engine = [
        [np.asarray(value) for value in pg.per_sample_gradients(model, *batch, engine=engine)
         .materialize().values()]
        for engine in ("factored", "loop")
    ]  # fmt: skip
    error = oracle.largest_difference(*by_engine) / (oracle.global_norm(by_engine[1]) or 1.0)
    assert error <= TOLERANCE["float64"], f"relative error {error:.1e}"


@QUICK
@given(architectures())
def test_thirty_architectures(recipe):
    _expect_equal_to_the_loop(recipe)


@pytest.mark.fuzz
@settings(QUICK, max_examples=500, derandomize=False)
@given(architectures())
def test_five_hundred_architectures(recipe):
    _expect_equal_to_the_loop(recipe)
