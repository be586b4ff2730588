"""The diagnostics' formulas against closed forms, on gradients that are given."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_pergrad.diagnostics._pairs import Pairs
from keras_pergrad.diagnostics._step import Seen
from tests.measured import seen, values

quick = settings(max_examples=50, deadline=None)
# float64: sums of some ten numbers of size 1, in another order.
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def _normal(rows: int, columns: int, number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(rows, columns)) + 0.5


def _trace_and_signal(g: np.ndarray) -> tuple[float, float]:
    gram, size = g @ g.T, len(g)
    pairs = (gram.sum() - np.trace(gram)) / (size * (size - 1))
    return np.trace(np.cov(g.T).reshape(g.shape[1], -1)), pairs


@quick
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**31))
def test_trace_identity(rows, columns, number):
    """`tr` is the trace of the sample covariance, `G2` the mean of the Gram matrix's other part."""
    g = _normal(rows, columns, number)
    trace, signal = _trace_and_signal(g)
    found = values(g)
    ratio = trace / signal if signal > 0 else np.nan
    np.testing.assert_allclose(found["grad_snr"], signal / trace, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["grad_noise_scale"], ratio, rtol=1e-7)
    m2 = (g**2).sum() / rows
    np.testing.assert_allclose(found["grad_coherence_debiased"], signal / m2, **CLOSE)


def test_unbiased_by_enumeration():
    """All 64 ordered draws of three from four: the mean is the population's, exactly."""
    population = np.array([[1, 2], [0, -1], [3, 1], [-2, 0.5]])
    draws = [population[list(k)] for k in itertools.product(range(4), repeat=3)]
    terms = np.mean([seen(g).terms("NoiseScale") for g in draws], axis=0)
    mean = population.mean(axis=0)
    # 64 sums of a few binary fractions.
    np.testing.assert_allclose(terms[0], ((population - mean) ** 2).sum() / 4, rtol=1e-14)
    np.testing.assert_allclose(terms[1], mean @ mean, rtol=1e-13)


def test_linear_regression():
    """`tr Σ = d(‖Δ‖²+σ²) + ‖Δ‖²`, `B_simple = d(1+σ²/‖Δ‖²) + 1` and each weight's GSNR."""
    rng, d, sigma = np.random.default_rng(0), 4, 0.7
    delta = np.array([0.9, -0.4, 0.3, 0.6])
    size = 400_000
    x = rng.normal(size=(size, d))
    g = (x @ delta - sigma * rng.normal(size=size))[:, None] * x
    square = delta @ delta
    (trace, signal), found = seen(g).terms("NoiseScale"), values(g)
    # 400 000 samples of products of four normal numbers: a standard error of about 0.5 %.
    assert trace == pytest.approx(d * (square + sigma**2) + square, rel=0.02)
    assert signal == pytest.approx(square, rel=0.02)
    assert found["grad_noise_scale"] == pytest.approx(d * (1 + sigma**2 / square) + 1, rel=0.03)
    expected = np.mean(delta**2 / (square + sigma**2 + delta**2))
    assert found["grad_gsnr"] == pytest.approx(expected, rel=0.03)


def test_identical_gradients():
    size = 6
    found = values(np.tile([3.0, 4.0], (size, 1)))
    assert found["grad_coherence"] == found["grad_concentration"] == size
    assert found["grad_noise_scale"] == found["norm_test"] == found["inner_test"] == 0
    assert found["grad_largest_share"] == pytest.approx(1 / size)
    assert found["grad_cosine"] == found["grad_cosine_others"] == pytest.approx(1)
    assert found["grad_pairwise_cosine"] == found["grad_most_alike"] == pytest.approx(1)
    assert found["grad_norm_median"] == found["grad_norm_max"] == 5
    assert np.isnan(found["grad_snr"])


def test_orthonormal_gradients():
    found = values(np.eye(5))
    assert found["grad_coherence"] == pytest.approx(1)
    assert np.isnan(found["grad_noise_scale"]) and found["grad_snr"] == 0
    assert abs(found["grad_pairwise_cosine"]) < 1e-15 and found["grad_confusion"] == 0
    assert found["grad_effective_rank"] == pytest.approx(4)  # the centred ones span one less


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "g", [[[1.0, 2.0], [-1.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0]]], ids=str
)
def test_nothing_is_ever_infinite(g):
    """A pair of opposites, no gradient at all, a batch of one."""
    found = values(np.array(g))
    assert not any(np.isinf(value) for value in found.values()), found
    assert np.isnan(found["grad_noise_scale"])


@quick
@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 2**31))
def test_projections(rows, columns, number):
    """`mean p_i = n2`; contributions add up to 1; the cosine with the mean of the others."""
    g = _normal(rows, columns, number)
    mean = g.mean(axis=0)
    along, n2 = g @ mean, mean @ mean
    np.testing.assert_allclose(along.mean(), n2, **CLOSE)
    step = seen(g)
    np.testing.assert_allclose(step.contributions.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(step.contributions, along / (rows * n2), **CLOSE)
    found, norms = values(g), np.linalg.norm(g, axis=1)
    others = (g.sum(axis=0) - g) / (rows - 1)
    cosines = (g * others).sum(axis=1) / (norms * np.linalg.norm(others, axis=1))
    np.testing.assert_allclose(found["grad_cosine_others"], cosines.mean(), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found["grad_cosine"], (along / norms).mean() / n2**0.5, **CLOSE)
    assert found["grad_cosine_negative"] == (along < 0).mean()
    against = -np.minimum(along, 0).sum() / (rows * n2)
    np.testing.assert_allclose(found["grad_contribution_against"], against, **CLOSE)


@quick
@given(st.integers(2, 8), st.integers(2, 5), st.integers(0, 2**31))
def test_inner_and_orthogonal_test(rows, columns, number):
    """By the definition: the variance along the mean, and of what is orthogonal to it."""
    g = _normal(rows, columns, number)
    mean = g.mean(axis=0)
    n2 = mean @ mean
    along = g @ mean
    apart = g - np.outer(along / n2, mean)
    found = values(g)
    inner = np.sqrt(along.var(ddof=1) / (rows * n2**2))
    orthogonal = np.sqrt((apart**2).sum() / ((rows - 1) * rows * n2))
    np.testing.assert_allclose(found["inner_test"], inner, rtol=1e-8)
    np.testing.assert_allclose(found["orthogonal_test"], orthogonal, rtol=1e-5, atol=1e-7)


@quick
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_scale_laws(number, scale):
    """`ℓ → cℓ` scales norms, and leaves ratios, cosines and contributions alone."""
    g = _normal(7, 4, number)
    one, other = values(g), values(scale * g)
    for name, value in one.items():
        factor = scale if "norm_m" in name or name == "grad_norm_p95" else 1.0
        factor = scale**2 if name == "grad_confusion" else factor
        np.testing.assert_allclose(other[name], factor * value, rtol=1e-7, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(seen(g).contributions, seen(scale * g).contributions, rtol=1e-9)


@quick
@given(st.integers(0, 2**31))
def test_order_of_the_samples_and_repeating_them(number):
    """No number knows the order; each sample twice leaves what is no estimate alone."""
    g = _normal(6, 3, number)
    one, turned, twice = values(g), values(g[::-1]), values(np.repeat(g, 2, axis=0))
    for name, value in one.items():
        np.testing.assert_allclose(turned[name], value, rtol=1e-7, atol=1e-9, err_msg=name)
    for name in ("grad_norm_mean", "grad_norm_max", "grad_diversity", "grad_cosine"):
        factor = 0.5 if name == "grad_diversity" else 1.0  # m2/(B n2)
        np.testing.assert_allclose(twice[name], factor * one[name], rtol=1e-9, err_msg=name)
    assert twice["grad_most_alike"] == pytest.approx(1)


def test_layers_add_up_to_the_model():
    g = _normal(5, 6)
    step = seen(g, columns=[2, 1, 3], paths=["a/w", "a/b", "b/w"])
    terms = step.terms_of_groups("NoiseScale")
    assert step.groups == ["model", "a", "b", "a/w", "a/b", "b/w"]
    np.testing.assert_allclose(terms[:, 0], terms[:, 1:3].sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(terms[:, 0], terms[:, 3:].sum(axis=1), rtol=1e-12)
    for place, part in enumerate((g[:, :3], g[:, 3:]), 1):
        np.testing.assert_allclose(terms[:, place], _trace_and_signal(part), rtol=1e-11)


def test_a_nan_in_one_layer_stays_there():
    g = _normal(5, 4)
    step = seen(g, columns=[2, 2], paths=["a/w", "b/w"], mean_squares=[np.nan, 1.0])
    terms = step.terms_of_groups("NoiseScale")
    assert np.isnan(terms[:, [0, 1, 3]]).all() and np.isfinite(terms[:, [2, 4]]).all()


def test_pairs_that_nobody_knows_are_not_said_to_agree():
    """As on replicas, of which each has but its own samples: `max(0.0, nan)` is 0 in Python."""
    seen = Seen(4, {}, {"gram": np.full(6, np.nan)}, np.ones(1))
    assert np.isnan(Pairs().terms(seen)).all()
