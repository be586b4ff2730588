"""The noise scale of several steps: a ratio of means, its interval, and steps with NaN."""

import numpy as np
import pytest

import keras_pergrad as pg
from keras_pergrad.diagnostics import (
    Record,
    Terms,
    Window,
    diagnostics_of,
    noise_scale,
    norm_quantiles,
)
from keras_pergrad.diagnostics._outliers import STEADY, OutlierTable, Spread, robust_z
from tests.measured import seen


def _record(trace: float, signal: float, step: int = 0) -> Record:
    return Record(step, 0, 8, 0.1, {}, noise={"model": [trace, signal]})


def _batches(rng, count: int, size: int, d: int, distance: float, noise: float) -> list[Record]:
    """Linear regression, near its optimum: `g = x (xᵀΔ - ε)`, of which only `tr, G2` are kept."""
    delta = np.zeros(d)
    delta[0] = distance
    found = []
    for step in range(count):
        x = rng.normal(size=(size, d))
        g = (x @ delta - noise * rng.normal(size=size))[:, None] * x
        found.append(_record(*seen(g).terms("NoiseScale"), step))
    return found


def test_near_an_optimum_a_ratio_of_means_holds_and_a_mean_of_ratios_does_not():
    """A noise scale of 211: `d(1 + σ²/‖Δ‖²) + 1` with d = 10, σ = 1, ‖Δ‖² = 1/20."""
    rng, d, square = np.random.default_rng(0), 10, 1 / 20
    true = d * (1 + 1 / square) + 1
    assert true == pytest.approx(211)
    records = _batches(rng, 4000, 32, d, square**0.5, 1.0)
    terms = np.array([record.noise["model"] for record in records])
    ratios = terms[:, 0] / terms[:, 1]
    assert 0.2 < (terms[:, 1] < 0).mean() < 0.6  # a single batch cannot tell its sign
    found = noise_scale(records)
    assert found.value == pytest.approx(true, rel=0.1)
    assert found.low < true < found.high and found.steps == 4000 and found.batch_size == 8
    assert abs(ratios.mean() - true) > 0.3 * true


def test_the_interval_covers_a_known_ratio():
    """95 % of intervals of 30 steps: with 400 of them, three standard errors are 3 %."""
    rng, hits, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        signal = 2 + rng.normal(size=30)
        trace = 10 + 3 * rng.normal(size=30)
        found = noise_scale([_record(*each) for each in zip(trace, signal, strict=True)])
        hits += found.low <= 5 <= found.high
    assert 0.91 <= hits / runs <= 0.98


def test_noise_that_dominates_is_flagged_and_never_a_number():
    found = noise_scale([_record(1.0, -0.1), _record(1.0, 0.1)])
    assert found.noise_dominated and np.isnan([found.value, found.low, found.high]).all()
    assert "Noise dominates" in found.advice
    assert not noise_scale([_record(1.0, 0.5)]).noise_dominated


def test_steps_that_cannot_tell_are_left_out():
    """Batches of one, and steps with NaN: both terms, not one of them."""
    found = noise_scale([_record(np.nan, np.nan), _record(2.0, 1.0), _record(np.nan, 5.0)])
    assert found.value == 2 and found.steps == 1 and np.isnan(found.low)
    nothing = noise_scale([])
    assert nothing.steps == 0 and np.isnan(nothing.value) and "No step" in nothing.advice


def test_an_interval_that_hangs_on_one_step():
    found = noise_scale([_record(1.0, 3.0), _record(1.0, -1.0), _record(1.0, -1.0)])
    assert (found.low, found.high) == (0.0, np.inf)


def test_no_noise_at_all():
    found = noise_scale([_record(0.0, 1.0)] * 4)
    assert found.value == 0 and not np.isnan([found.low, found.high]).any()


def test_an_epochs_number_is_a_ratio_of_means_of_the_same_steps():
    rng = np.random.default_rng(2)
    batches = [rng.normal(size=(size, 3)) + 1 for size in (6, 6, 1, 4)]
    terms = Terms(diagnostics_of("norms"))
    window = Window(terms)
    for g in batches:
        window.add(terms.joined(seen(g).record().terms))
    found = window.values()
    two = [seen(g) for g in batches if len(g) > 1]
    trace, signal = np.mean([each.terms("NoiseScale") for each in two], axis=0)
    assert found["grad_noise_scale"] == pytest.approx(trace / signal, rel=1e-12)
    aligned, _, m2 = np.mean([each.terms("Coherence") for each in two], axis=0)
    assert found["grad_coherence"] == pytest.approx(aligned / m2, rel=1e-12)
    norms = [np.linalg.norm(g, axis=1) for g in batches]
    assert found["grad_norm_max"] == pytest.approx(max(each.max() for each in norms))
    assert found["grad_norm_mean"] == pytest.approx(np.mean([each.mean() for each in norms]))


def test_robust_z():
    norms = np.array([1.0, np.e, np.e**2, np.e**3, np.e**10])
    z = robust_z(norms**2, np.ones(5, bool), Spread())
    np.testing.assert_allclose(z, np.array([-2, -1, 0, 1, 8]) / 1.4826, rtol=1e-12)


def test_a_row_stands_out_also_where_most_norms_are_equal():
    """As with a loss of constant slope: the median deviation is 0 there."""
    norms = np.array([1.0] * 7 + [100.0])
    z = robust_z(norms**2, np.ones(8, bool), Spread())
    assert z.argmax() == 7 and z[7] > 3 and (z[:7] == 0).all()
    assert (robust_z(np.ones(4), np.ones(4, bool), Spread()) == 0).all()
    rounded = 1 + 1e-8 * np.arange(4)
    assert (robust_z(rounded, np.ones(4, bool), Spread()) == 0).all()


def test_a_short_batch_borrows_the_spread_of_those_before_it():
    """Three samples of a normal distribution have a z above 20 in one of twelve batches."""
    rng = np.random.default_rng(0)

    def normal(size):
        return np.exp(2 * rng.normal(size=size)), np.ones(size, bool)

    alone = [robust_z(*normal(3), Spread()).max() for _ in range(400)]
    spread = Spread()
    robust_z(*normal(STEADY), spread)
    behind = [robust_z(*normal(3), spread).max() for _ in range(400)]
    assert np.mean(np.array(alone) > 20) > 0.01
    assert max(behind) < 6
    squares = np.exp(2 * rng.normal(size=STEADY))
    own = robust_z(squares, np.ones(STEADY, bool), Spread())
    np.testing.assert_array_equal(own, robust_z(squares, np.ones(STEADY, bool), spread))


def test_the_table_keeps_each_row_once_at_its_worst():
    table = OutlierTable(2)
    g = np.diag([1.0, 2.0, 4.0, 8.0])
    seen(g, ids=np.array([10, 11, 12, 13])).record(0, table)
    assert [row.id for row in table.rows] == [13, 12]
    seen(np.diag([1.0, 1.1, 1.2, 90.0]), ids=np.array([10, 11, 13, 12]), step=7).record(1, table)
    first, second = table.rows
    assert (first.id, first.step, first.epoch, first.norm) == (12, 7, 1, 90.0)
    assert second.id == 13 and second.step == 0 and {first.seen, second.seen} == {2}


def test_quantiles_of_norms_over_steps():
    rng = np.random.default_rng(0)
    steps = [10 ** rng.normal(size=(200, 1)) for _ in range(5)]
    records = [seen(each).record() for each in steps]
    found = norm_quantiles(records, (0.5, 0.95, 1.0))
    norms = np.abs(np.concatenate(steps))
    for share, norm in found.items():
        exact = np.quantile(norms, share, method="inverted_cdf")
        assert exact <= norm * (1 + 1e-9) and norm <= exact * 10**0.1 * (1 + 1e-9)
    assert np.isnan(norm_quantiles([], (0.5,))[0.5])
    with pytest.raises(pg.PerGradError, match=r"Received: 1\.5"):
        norm_quantiles(records, (1.5,))
