"""What only a coarse dtype does: named with its numbers, and a remedy that is not there already."""

from collections import Counter

import pytest

import keras_pergrad as pg
from tests.broken.base import numbers
from tests.broken.rounding import ROUNDING, half, large, scaled_by
from tests.cases import nudge
from tests.figures.causes import wrongly_named


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_is_named(name):
    assert wrongly_named(ROUNDING[name], Counter()) == ""


def causes(build, batch=None, **options):
    model = build()
    nudge(model)
    return pg.check_equivalence(model, *(batch or numbers(5)()), **options).causes


def test_an_overflow_says_how_far():
    [cause] = causes(half(times=1e6))
    assert "65504" in cause.because and "In float64 all is finite" in cause.because
    assert "Compile with a keras.optimizers.LossScaleOptimizer" in cause.remedy


def test_a_loss_scale_that_is_there_is_not_asked_for():
    [cause] = causes(half(scaled_by(2.0**24)))
    assert "times the loss scale of 1.67772e+07" in cause.because
    assert "Compile" not in cause.remedy
    assert "scales the loss by 1.67772e+07 now" in cause.remedy


def test_no_loss_scale_mends_the_forward_pass():
    [cause] = causes(half(), large())
    assert cause.where == "first" and "reaches" in cause.because
    assert "LossScaleOptimizer" not in cause.remedy


def test_an_underflow_under_a_loss_scale_asks_for_a_larger_one():
    [cause] = causes(half(scaled_by(1.0), times=7e-7), engine="loop", rtol=1e-3)
    assert "underflow" in cause.because and "vanishes in float64" in cause.because
    assert "scales the loss by 1 now" in cause.remedy and "larger" in cause.remedy
    assert cause.explains == pytest.approx(1.0, abs=1e-3)


def test_a_loss_scale_mends_an_underflow():
    """The remedy, followed: the same loss, and no cause."""
    assert causes(half(scaled_by(2.0**15), times=7e-7), engine="loop", rtol=1e-2) == []


def test_rounding_of_float32_asks_for_float64():
    broken = ROUNDING["cancels in float32"]
    [cause] = causes(broken.build, rtol=broken.rtol)
    assert "vanishes in float64" in cause.because and "float64" in cause.remedy
    assert "flow" not in cause.because


def test_what_underflows_is_no_fault_of_a_rule():
    """The sums of samples differ from the tape's there, in float16 alone: no warning is due."""
    broken = ROUNDING["underflows"]
    report = pg.check_equivalence(broken.build(), *broken.batch(), engine="factored")
    assert report.equivalent
