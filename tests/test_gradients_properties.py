"""What `SampleGradients` answers equals its definition on the materialized gradients."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_pergrad.gradients import Block, Chunked, SampleGradients

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

    def find(indices):
        rows = [tf.gather(a, indices) for a in arrays]
        return Block.written_out(indices, tf.gather(losses, indices), rows)

    names = [f"layer{k // 2}/weight{k}" for k in range(len(arrays))]
    zero = [tf.zeros(a.shape[1:], tf.float64) for a in arrays]
    return SampleGradients(Chunked(find, size, 1, chunk), names, zero, {}), arrays, losses


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
    for found, each in zip(g.gram(by="variable").values(), arrays, strict=True):
        own = each.reshape(len(each), -1)
        np.testing.assert_allclose(found, own @ own.T, **CLOSE)
    layers = g.gram(by="layer")
    assert layers.keys() == g.norms(by="layer").keys()
    np.testing.assert_allclose(sum(layers.values()), flat @ flat.T, **CLOSE)


@quick
@given(gradients())
def test_the_same_in_a_graph(given_):
    g, _, _ = given_
    eager = g.mean(), g.squared_norms(), g.gram()
    graph = tf.function(lambda: (g.mean(), g.squared_norms(), g.gram()))()
    for left, right in zip(tf.nest.flatten(eager), tf.nest.flatten(graph), strict=True):
        np.testing.assert_allclose(left, right, **CLOSE)


@quick
@given(gradients())
def test_projections_on_the_mean(given_):
    g, arrays, _ = given_
    flat = _flat(arrays)
    mean = flat.mean(axis=0)
    np.testing.assert_allclose(g.projections(), flat @ mean, **CLOSE)
    np.testing.assert_allclose(np.mean(g.projections()), mean @ mean, **CLOSE)
    by_variable = {
        path: array.reshape(len(array), -1) @ array.mean(axis=0).ravel()
        for path, array in zip(g.variables, arrays, strict=True)
    }
    for found in (g.projections(by="variable"), g.dot(g.mean(), by="variable")):
        assert list(found) == g.variables
        for path, expected in by_variable.items():
            np.testing.assert_allclose(found[path], expected, **CLOSE)
    np.testing.assert_allclose(sum(g.projections(by="layer").values()), flat @ mean, **CLOSE)


def test_an_unknown_grouping_is_refused():
    one = tf.ones((1, 2))
    blocks = Chunked(lambda i: Block.written_out(i, one[:, 0], [one]), 1, 1, 1)
    g = SampleGradients(blocks, ["w"], [one[0]], {})
    with pytest.raises(ValueError, match="Received"):
        g.squared_norms(by="weight")
