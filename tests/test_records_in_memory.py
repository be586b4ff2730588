"""What a monitor keeps of measured steps: few bytes, bounded, and a record's numbers the same."""

import copy
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from keras_pergrad.diagnostics import Terms, Window, by_epoch, diagnostics_of
from keras_pergrad.diagnostics._kept import Kept
from keras_pergrad.diagnostics._outliers import OutlierTable
from tests.measured import seen
from tests.monitored import expect_records_equal

WIDE = {"columns": [2, 3, 4], "paths": ["a/w", "a/b", "c/w"]}


def steps(count: int, **options) -> list:
    rng = np.random.default_rng(0)
    table = OutlierTable(3)
    given = [seen(rng.normal(2, size=(12, 9)), step=k, **WIDE, **options) for k in range(count)]
    return [each.summary.condensed(each.step, 0, table) for each in given]


def test_records_are_those_that_were_made_one_by_one():
    kept, table, rng = Kept(), OutlierTable(3), np.random.default_rng(0)
    kept.extend(steps(5))
    one_by_one = [
        seen(rng.normal(2, size=(12, 9)), step=k, **WIDE).record(0, table) for k in range(5)
    ]
    expect_records_equal(kept, one_by_one)
    assert kept == one_by_one and kept != one_by_one[:4] and kept[-1] == one_by_one[-1]
    assert kept[1:3] == one_by_one[1:3] and len(kept) == 5 and one_by_one[0].groups["a"]


def test_many_records_of_one_form_are_made_at_once_and_are_the_same():
    rng = np.random.default_rng(1)
    given = seen(rng.normal(2, size=(12, 9)), **WIDE)
    kept, table = Kept(), OutlierTable(3)
    kept.extend(given.summary.condensed(given.step, k, table) for k in range(600))
    records = list(kept)
    assert [each.epoch for each in records] == list(range(600))
    assert records[599].values == records[0].values and records[599].groups == records[0].groups


def test_records_with_a_nan_are_equal_to_themselves():
    kept, given = Kept(), seen(np.eye(3))  # orthonormal: the noise scale is NaN
    kept.extend([given.summary.condensed(given.step, 0, OutlierTable(3))])
    assert np.isnan(kept[0].values["grad_noise_scale"]) and kept[0] == kept[0]
    assert kept == list(kept) and kept[0] in kept and kept.index(kept[0]) == 0
    assert kept == copy.deepcopy(kept) and kept[0] != replace(kept[0], step=1)


def test_records_of_a_file_and_steps_without_a_finite_sample_are_among_them():
    kept, given = Kept(), seen(np.eye(3))
    nothing = replace(given.step, samples={"squared_norms": np.full([3, 1], np.nan)})
    measured, table = given.record(), OutlierTable(3)
    kept.extend([measured, given.summary.condensed(nothing, 1, table), *steps(2)])
    first, second, *rest = kept
    assert first == measured and len(rest) == 2
    assert np.isnan(list(second.values.values())).all() and second.non_finite == [0, 1, 2]
    assert second.groups == {"layer": {}, "layer/w": {}} and not second.terms and not second.noise


def test_the_oldest_make_room():
    kept = Kept(most=3)
    kept.extend(steps(5))
    assert [each.step for each in kept] == [2, 3, 4]
    one = steps(1)[0].nbytes
    kept = Kept(room=int(2.5 * one))
    kept.extend(steps(5))
    assert [each.step for each in kept] == [3, 4] and kept.nbytes <= 2.5 * one
    kept = Kept(room=1)
    kept.extend(steps(2))
    assert [each.step for each in kept] == [1]  # the last one however large it is
    kept.clear()
    assert not len(kept) and not kept.nbytes and not list(kept)


@pytest.mark.parametrize("of_file", [False, True])
def test_they_take_about_as_many_bytes_as_is_said(of_file):
    """Within a factor of two of what Python has taken, in blocks of its own and NumPy's."""
    tracemalloc.start()
    try:
        before, kept = tracemalloc.get_traced_memory()[0], Kept()
        if of_file:
            table = OutlierTable(3)
            rng = np.random.default_rng(0)
            kept.extend(
                seen(rng.normal(2, size=(12, 9)), step=k, **WIDE).record(0, table)
                for k in range(200)
            )
        else:
            kept.extend(steps(200))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept.nbytes / 2 <= taken <= 2 * kept.nbytes


def test_terms_that_are_told_apart_are_joined_again():
    terms, record = Terms(diagnostics_of("full")), seen(np.eye(3)).record()
    joined = terms.joined(record.terms)
    found = {
        name: each for name, each in terms.by_diagnostic(joined).items() if name in record.terms
    }
    assert found == record.terms
    assert np.isnan(terms.at("LossChange", joined)).all()  # which takes an update
    window = Window(terms)
    window.add(joined)
    np.testing.assert_array_equal(window.terms, np.where(terms.known(joined), joined, np.nan))


def test_terms_of_another_version_are_left_out():
    """A record file outlives a diagnostic's terms: an epoch then has what both know."""
    record = seen(np.random.default_rng(0).normal(2, size=(6, 3))).record()
    other = replace(record, terms={**record.terms, "Cosine": [0.5, 0.0, 0.25], "Gone": [1.0]})
    [numbers] = by_epoch([other]).values()
    assert np.isnan(numbers["grad_cosine"]) and numbers["grad_norm_max"] > 0
