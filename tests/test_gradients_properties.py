"""What `SampleGradients` answers equals its definition on the materialized gradients."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_pergrad as pg
from keras_pergrad.gradients import Chunked, SampleGradients
from tests import oracle
from tests.cases import TOLERANCE, make_case
from tests.problems import by_name

SHAPES = st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2)]), min_size=1, max_size=4)
# float64 sums of at most 6 × 20 numbers of size 1, in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
quick = settings(max_examples=40, deadline=None)


@st.composite
def gradients(draw):
    """Random sample gradients in random chunks, and the same as arrays [B, *shape]."""
    size, chunk = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    arrays = [rng.normal(size=(size, *shape)) for shape in draw(SHAPES)]
    losses = rng.normal(size=size)

    def rows(indices):
        return tf.gather(losses, indices), [tf.gather(a, indices) for a in arrays]

    names = [f"layer{k // 2}/weight{k}" for k in range(len(arrays))]
    zero = [tf.zeros(a.shape[1:], tf.float64) for a in arrays]
    return SampleGradients(Chunked(rows, size, 1, chunk), names, zero, {}), arrays, losses


def _flat(arrays) -> np.ndarray:
    return np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)


@quick
@given(gradients())
def test_materialize_and_losses(given_):
    g, arrays, losses = given_
    assert list(g.materialize()) == g.variables
    for found, expected in zip(g.materialize().values(), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(g.losses, losses)
    assert g.num_samples == len(losses)


@quick
@given(gradients(), st.integers(0, 2**31))
def test_sums_and_means(given_, seed):
    g, arrays, losses = given_
    weights = np.random.default_rng(seed).normal(size=len(losses))
    for found, array in zip(g.mean(), arrays, strict=True):
        np.testing.assert_allclose(found, array.mean(axis=0), **CLOSE)
    for found, array in zip(g.sum(), arrays, strict=True):
        np.testing.assert_allclose(found, array.sum(axis=0), **CLOSE)
    for found, array in zip(g.sum(weights), arrays, strict=True):
        np.testing.assert_allclose(found, np.tensordot(weights, array, 1), **CLOSE)
    for found, array in zip(g.second_moment(), arrays, strict=True):
        np.testing.assert_allclose(found, (array**2).mean(axis=0), **CLOSE)


@quick
@given(gradients())
def test_norms(given_):
    g, arrays, _ = given_
    by_variable = [(a.reshape(len(a), -1) ** 2).sum(axis=1) for a in arrays]
    np.testing.assert_allclose(g.squared_norms(), sum(by_variable), **CLOSE)
    np.testing.assert_allclose(g.norms(), np.sqrt(sum(by_variable)), **CLOSE)
    found = g.squared_norms(by="variable")
    assert list(found) == g.variables
    for path, expected in zip(g.variables, by_variable, strict=True):
        np.testing.assert_allclose(found[path], expected, **CLOSE)
    layers = g.squared_norms(by="layer")
    assert list(layers) == sorted({path.split("/")[0] for path in g.variables})
    np.testing.assert_allclose(sum(layers.values()), sum(by_variable), **CLOSE)


@quick
@given(gradients(), st.integers(0, 2**31))
def test_inner_products(given_, seed):
    g, arrays, _ = given_
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=a.shape[1:]) for a in arrays]
    flat, direction = _flat(arrays), np.concatenate([v.ravel() for v in vectors])
    np.testing.assert_allclose(g.dot(vectors), flat @ direction, **CLOSE)
    np.testing.assert_allclose(g.gram(), flat @ flat.T, **CLOSE)


@quick
@given(gradients())
def test_the_same_in_a_graph(given_):
    g, _, _ = given_
    eager = g.mean(), g.squared_norms(), g.gram()
    graph = tf.function(lambda: (g.mean(), g.squared_norms(), g.gram()))()
    for left, right in zip(tf.nest.flatten(eager), tf.nest.flatten(graph), strict=True):
        np.testing.assert_allclose(left, right, **CLOSE)


def test_an_unknown_grouping_is_refused():
    one = tf.ones((1, 2))
    g = SampleGradients(Chunked(lambda i: (one[:, 0], [one]), 1, 1, 1), ["w"], [one[0]], {})
    with pytest.raises(ValueError, match="Received"):
        g.squared_norms(by="weight")


# The autouse fixture resets Keras between tests; between examples there is nothing to reset.
model_level = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@model_level
@given(
    size=st.integers(1, 5),
    weights=st.lists(st.floats(-2, 2), min_size=5, max_size=5),
    keep=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_any_mask_and_any_weights(float64, size, weights, keep):
    """Masks of any lengths, fully masked samples included, and weights of any sign."""
    case = make_case(by_name("mask"))
    ids = np.tile(np.array([1, 2, 3], "int32"), (size, 1))
    for row in range(size):
        ids[row, keep[row] :] = 0
    y = np.random.default_rng(1).normal(size=(size, 3, 2))
    batch = ids, y, np.array(weights[:size])[:, None]
    expected = oracle.contributions_by_weight(case.model, *batch)
    found = pg.per_sample_gradients(case.model, *batch, engine="loop").materialize()
    scale = oracle.global_norm(expected) or 1.0
    found = [np.asarray(value) for value in found.values()]
    assert oracle.largest_difference(found, expected) <= TOLERANCE["float64"] * scale


@model_level
@given(size=st.integers(1, 6), chunk=st.integers(1, 6))
def test_chunks_do_not_change_the_result(float64, size, chunk):
    case = make_case(by_name("dense"))
    rng = np.random.default_rng(2)
    batch = rng.normal(size=(size, 3)), rng.normal(size=(size, 2))
    weights = sum(v.numpy().nbytes for v in case.model.trainable_variables)
    options = {"engine": "loop", "memory_budget": chunk * weights}
    chunked = pg.per_sample_gradients(case.model, *batch, **options)
    whole = pg.per_sample_gradients(case.model, *batch, engine="loop")
    np.testing.assert_allclose(chunked.gram(), whole.gram(), **CLOSE)
    for left, right in zip(chunked.mean(), whole.mean(), strict=True):
        np.testing.assert_allclose(left, right, **CLOSE)
