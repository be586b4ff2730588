"""Layers that look at a sample's place or at the batch's size are named, and no others are."""

from collections import Counter

import pytest

import keras_pergrad as pg
from tests import oracle
from tests.broken.base import mixing, numbers
from tests.broken.placing import INNOCENT, PLACERS, PLACING
from tests.cases import nudge
from tests.figures.causes import wrongly_named


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", PLACING)
def test_the_layer_is_named(name):
    assert wrongly_named(PLACING[name], Counter()) == ""


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", INNOCENT)
def test_no_other_layer_is(name):
    assert wrongly_named(INNOCENT[name], Counter()) == ""


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", PLACERS)
def test_it_is_told_what_the_layer_looks_at_and_undone(name):
    model = mixing(PLACERS[name])()
    nudge(model)
    with oracle.expect_unchanged(model):
        [cause] = pg.check_equivalence(model, *numbers(5)()).causes
    looks = "the batch's size" if "size" in name else "the sample's place in the batch"
    assert f"it looks at {looks}." in cause.because
    assert cause.explains == pytest.approx(1.0, abs=1e-3)


def test_the_parts_of_a_place_and_a_sum_add_up():
    broken = PLACING["looks at the place, and a sum"]
    model = broken.build()
    nudge(model)
    report = pg.check_equivalence(model, *broken.batch())
    assert sum(cause.explains for cause in report.causes) == pytest.approx(1.0, abs=1e-3)
    assert report.remainder == pytest.approx(0.0, abs=1e-3)
