"""Facts about noise, each measured once: equal samples, merged axes, augmentation."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.cases import make_case
from tests.problems import by_name, by_tag, compiled, floats, images
from tests.samples import each_engine, expect_exact, materialized

OWN_NOISE = by_tag("noise", without=("own_terms", "batch_noise"))


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(p, id=p.name, marks=pytest.mark.slow if "augmentation" in p.tags else ())
        for p in OWN_NOISE
    ],
)
def test_equal_samples_get_unequal_noise(problem):
    """A vectorized loop gives all samples row 0 of the draw, so equal samples equal gradients."""
    case = make_case(problem)
    same = np.repeat(case.x[:1], 12, axis=0), np.repeat(case.y[:1], 12, axis=0)
    rows = materialized(case.model, *same, engine="vectorized")
    assert any(np.any(g != g[:1]) for g in rows)
    parts = pg.per_sample_gradients(case.model, *same, engine="vectorized").mean()
    expected = oracle.batch_gradient(case.model, *same)
    expect_exact([np.asarray(p) for p in parts], expected)


def _flattened(time_major: bool) -> keras.Model:
    start = keras.Input((3, 2))
    hidden = layers.Dense(4)(start)
    hidden = ops.transpose(hidden, (1, 0, 2)) if time_major else hidden
    flat = layers.Dropout(0.5, seed=1)(ops.reshape(hidden, (-1, 4)))
    if time_major:
        flat = ops.transpose(ops.reshape(flat, (3, -1, 4)), (1, 0, 2))
    return compiled(keras.Model(start, ops.reshape(flat, (-1, 3, 4))))


@each_engine
@pytest.mark.parametrize("of", ["own", "contribution"])
@pytest.mark.parametrize("time_major", [False, True], ids=["B_T", "T_B"])
def test_noise_with_samples_and_positions_in_one_axis(engine, time_major, of):
    """Which of the B·T draws are a sample's depends on the order; the whole batch's is known.

    An own gradient is that of a sample run alone, which nobody can make here but in its batch.
    """
    model, batch = _flattened(time_major), (floats(4, 3, 2, seed=1), floats(4, 3, 4, seed=2))
    if engine in ("loop", "vectorized") or (engine, of) == ("factored", "own"):
        with pytest.raises(pg.UnsupportedError, match="engine='jacobian'"):
            materialized(model, *batch, engine=engine, of=of)
        return
    expected = oracle.contributions_by_weight(model, *batch)
    found = materialized(model, *batch, engine=engine, of=of)
    expect_exact(found, expected)


@pytest.mark.parametrize("name", ["random_flip", "random_erasing", "random_contrast"])
def test_augmentation_is_the_batchs_own(name):
    case = make_case(by_name(name))
    x = images(5, 6, 6, 3, seed=9)
    y = floats(5, 50, seed=9)
    found = [np.asarray(m) for m in pg.per_sample_gradients(case.model, x, y).mean()]
    expect_exact(found, oracle.batch_gradient(case.model, x, y))
