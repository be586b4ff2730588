"""Engines against the oracle on batches of any size, with any mask and weights, in any chunks."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers

import keras_pergrad as pg
from tests import oracle
from tests.cases import TOLERANCE, nudge
from tests.problems import compiled

pytestmark = pytest.mark.usefixtures("float64")
# The loop runs eagerly; the others trace each example, which takes some tenths of a second.
LOOP, STACKED = ("loop",), ("vectorized", "jacobian")
# float64 sums of at most 4 × 20 numbers of size 1, in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def examples(count: int) -> Callable:
    """`count` examples; between them there is nothing of Keras to reset.

    None is made smaller when it fails: with a trace for each attempt that takes five minutes.
    """
    return settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def each(engines: tuple[str, ...]):
    return pytest.mark.parametrize("engine", engines)


@dataclass(frozen=True)
class Drawn:
    """A model on sequences, to be built outside of the drawing, and a batch for it."""

    build: Callable[[], keras.Model]
    x: np.ndarray
    y: np.ndarray
    sample_weight: np.ndarray

    @property
    def batch(self) -> tuple[np.ndarray, ...]:
        return self.x, self.y, self.sample_weight


@st.composite
def sizes(draw) -> tuple[int, int, int]:
    """Samples, positions, outputs."""
    return draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))


@st.composite
def weights(draw, *shape: int) -> np.ndarray:
    """Of any sign, zeros among them."""
    count = int(np.prod(shape))
    values = st.one_of(st.just(0.0), st.floats(-2, 2, width=32))
    return np.array(draw(st.lists(values, min_size=count, max_size=count))).reshape(shape)


def _model(*chain) -> keras.Model:
    model = compiled(keras.Sequential(chain))
    nudge(model)
    return model


def _masked(T: int, width: int) -> keras.Model:
    embedding = layers.Embedding(4, 3, mask_zero=True)
    return _model(keras.Input((T,), dtype="int32"), embedding, layers.Dense(width))


def _dense(T: int, width: int) -> keras.Model:
    return _model(keras.Input((T, 2)), layers.Dense(3, "tanh"), layers.Dense(width))


@st.composite
def masked(draw) -> Drawn:
    """Masks of any lengths, fully masked samples included, that reach the loss."""
    B, T, width = draw(sizes())
    ids = np.tile(np.arange(1, T + 1, dtype="int32"), (B, 1))
    for row in range(B):
        ids[row, draw(st.integers(0, T)) :] = 0
    y = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(B, T, width))
    sample_weight = draw(weights(B, draw(st.sampled_from([1, T]))))
    return Drawn(functools.partial(_masked, T, width), ids, y, sample_weight)


@st.composite
def dense(draw) -> Drawn:
    """Sequences without a mask, one weight a position."""
    B, T, width = draw(sizes())
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x, y = rng.normal(size=(B, T, 2)), rng.normal(size=(B, T, width))
    return Drawn(functools.partial(_dense, T, width), x, y, draw(weights(B, T)))


def _expect_contributions(drawn: Drawn, engine: str) -> None:
    """Each is the gradient of its sample's term, found with one-hot sample weights."""
    model = drawn.build()
    expected = oracle.contributions_by_weight(model, *drawn.batch)
    g = pg.per_sample_gradients(model, *drawn.batch, engine=engine)
    found = [np.asarray(value) for value in g.materialize().values()]
    scale = oracle.global_norm(expected) or 1.0
    assert oracle.largest_difference(found, expected) <= TOLERANCE["float64"] * scale


def _expect_chunks_equal_the_whole(drawn: Drawn, engine: str, chunk: int) -> None:
    model = drawn.build()
    whole = pg.per_sample_gradients(model, *drawn.batch, engine=engine)
    budget = chunk * whole.blocks.bytes_each
    parts = pg.per_sample_gradients(model, *drawn.batch, engine=engine, memory_budget=budget)
    assert parts.blocks.chunk == chunk
    np.testing.assert_allclose(parts.gram(), whole.gram(), **CLOSE)
    for left, right in zip(parts.mean(), whole.mean(), strict=True):
        np.testing.assert_allclose(left, right, **CLOSE)


@each(LOOP)
@examples(12)
@given(masked())
def test_any_mask_and_any_weights(engine, drawn):
    _expect_contributions(drawn, engine)


@each(STACKED)
@examples(3)
@given(masked())
def test_any_mask_and_any_weights_stacked(engine, drawn):
    _expect_contributions(drawn, engine)


@each(LOOP)
@examples(8)
@given(dense(), st.integers(1, 5))
def test_chunks_do_not_change_the_result(engine, drawn, chunk):
    _expect_chunks_equal_the_whole(drawn, engine, chunk)


@each(STACKED)
@examples(3)
@given(dense(), st.integers(1, 5))
def test_chunks_do_not_change_the_result_stacked(engine, drawn, chunk):
    _expect_chunks_equal_the_whole(drawn, engine, chunk)


@pytest.mark.slow
@each(LOOP + STACKED)
@examples(60)
@given(st.one_of(masked(), dense()), st.integers(1, 5))
def test_many_batches(engine, drawn, chunk):
    _expect_contributions(drawn, engine)
    _expect_chunks_equal_the_whole(drawn, engine, chunk)
