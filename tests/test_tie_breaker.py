"""Near the tolerance of float32 the check runs again in float64, and that run decides."""

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests import planted
from tests.cases import make_case
from tests.problems import by_name, compiled, floats

# Below the 1e-5 that float32 allows, and above a tenth of it, where float64 is asked.
SMALL = planted.Planted(planted.scaled_everywhere(1 + 3e-6))


def _policies(model) -> list[str]:
    return [layer.dtype_policy.name for layer in model.layers]


def test_a_fault_within_float32s_tolerance_is_found_in_float64():
    case = make_case(by_name("dense"))
    report = pg.check_equivalence(case.model, *case.batch, engine=SMALL)
    assert report.mean.error < report.tolerance.rtol
    assert "float64" in report.tie_breaker and "not equivalent" in report.tie_breaker
    assert not report.equivalent and not report.mean.passed
    assert not any(row.passed for row in report.rows)
    assert f"Tie-breaker: {report.tie_breaker}" in " ".join(str(report).split())


def test_a_tolerance_that_was_asked_for_is_not_second_guessed():
    case = make_case(by_name("dense"))
    report = pg.check_equivalence(case.model, *case.batch, engine=SMALL, rtol=1e-5)
    assert report.equivalent and report.tie_breaker is None


def _rounding() -> keras.Model:
    """Adding and taking away 1,000 leaves float32 three or four digits less, and float64 none."""
    away = layers.Lambda(lambda values: values + 1000.0 - 1000.0)
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(4), away, layers.Dense(2)]))


def test_rounding_near_the_tolerance_is_acquitted():
    model, batch = _rounding(), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    report = pg.check_equivalence(model, *batch)
    assert max(report.mean.error, report.oracle.error) > report.tolerance.rtol / 10
    assert "float64" in report.tie_breaker and "not equivalent" not in report.tie_breaker
    assert report.equivalent and report.contributions is None
    # Asked for a tolerance, the same float32 numbers do not pass: float64 is what acquits them.
    assert not pg.check_equivalence(model, *batch, rtol=1e-6).equivalent
    assert _policies(model) == ["float32"] * len(model.layers)


class Single(layers.Layer):
    """Adds a constant that is float32 whatever comes in."""

    def call(self, inputs):
        return tf.add(inputs, tf.constant(1.0, tf.float32))


@pytest.mark.parametrize("factor", [1 + 3e-6, 1.01], ids=["within", "beyond"])
def test_a_model_that_does_not_run_in_float64_is_judged_in_float32(factor):
    """And what was near stays as it was, in a sentence that says so."""
    model = compiled(keras.Sequential([keras.Input((3,)), Single(), layers.Dense(2)]))
    engine = planted.Planted(planted.scaled_everywhere(factor))
    batch = floats(4, 3, seed=1), floats(4, 2, seed=2)
    report = pg.check_equivalence(model, *batch, engine=engine)
    assert "does not run in float64" in report.tie_breaker
    assert report.equivalent is (factor < 1.001)
    assert _policies(model) == ["float32"] * len(model.layers)
    assert keras.config.floatx() == "float32"
