"""What a monitor adds up for each row, against the definition; bounded, and without a trace."""

import tracemalloc

import keras
import numpy as np
import pytest

import keras_pergrad as pg
from keras_pergrad.diagnostics import ALIGNMENTS, SQUARED_NORMS, MeasuredStep, SampleSums
from keras_pergrad.diagnostics._sample_sums import BYTES_EACH
from tests.oracle import state_of

ROWS, RATE = 12, 0.25


def _step(ids, squares, losses=None, along=None, rate=RATE) -> MeasuredStep:
    ids, squares = np.array(ids), np.array(squares, float)[:, None]
    losses = np.full(len(ids), np.nan) if losses is None else np.array(losses, float)
    samples = {SQUARED_NORMS: squares}
    if along is not None:
        samples[ALIGNMENTS] = np.array(along, float)[:, None]
    return MeasuredStep(0, rate, True, ids, losses, np.ones(len(ids)), samples)


def test_sums_are_by_row():
    sums = SampleSums()
    sums.add(_step([7, 3], [4, 9], losses=[1, np.nan], along=[2, -1]))
    sums.add(_step([3, 7, 3], [1, 16, np.nan], losses=[5, 2, 2], along=[-3, np.nan, 1], rate=0.5))
    table = sums.table
    assert table.ids.tolist() == [7, 3]
    expected = {
        "count": [2, 2],
        "norm": [(2 + 4) / 2, (3 + 1) / 2],
        "loss": [(1 + 2) / 2, 5],
        "self_influence": [RATE * 4 + 0.5 * 16, RATE * 9 + 0.5 * 1],
        "alignment": [RATE * 2, RATE * -1 + 0.5 * -3],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, err_msg=name)


def test_a_row_that_is_twice_in_a_batch_counts_twice():
    sums = SampleSums()
    sums.add(_step([5, 5], [1, 4]))
    assert sums.table["count"].tolist() == [2] and sums.table["self_influence"][0] == RATE * 5
    assert "alignment" not in sums.table.columns


def test_rows_beyond_the_largest_number_are_counted_and_left_out():
    sums = SampleSums(max_ids=3)
    for _ in range(2):
        sums.add(_step(range(5), np.ones(5)))
    assert sums.table.ids.tolist() == [0, 1, 2] and sums.left_out == 4
    assert sums.table["count"].tolist() == [2, 2, 2]


def test_a_row_takes_no_more_than_is_said():
    rows = 200_000
    ids = 2**40 + np.arange(rows)
    tracemalloc.start()
    try:
        sums = SampleSums(rows)
        for k in range(0, rows, 1000):
            sums.add(_step(ids[k : k + 1000], np.ones(1000)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sums.table) == rows and held / rows <= BYTES_EACH


# --- in a training ---


def _model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh")])
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


def _data(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, 1))


def _gradients(model, x, y) -> np.ndarray:
    found = pg.per_sample_gradients(model, x, y, engine="loop").materialize().values()
    return np.concatenate([np.reshape(each, [len(x), -1]) for each in found], axis=1)


@pytest.mark.usefixtures("float64")
def test_a_monitor_adds_up_what_the_definition_says():
    (x, y), validation, ids = _data(), _data(5, seed=1), np.arange(ROWS) * 10
    model, influence, alignment, norms = _model(), np.zeros(ROWS), np.zeros(ROWS), np.zeros(ROWS)
    for _ in range(3):
        g_val = _gradients(model, *validation).mean(axis=0)
        for rows in np.split(np.arange(ROWS), 3):
            g = _gradients(model, x[rows], y[rows])
            influence[rows] += RATE * (g**2).sum(axis=1)
            alignment[rows] += RATE * g @ g_val
            norms[rows] += np.linalg.norm(g, axis=1) / 3
            model.train_on_batch(x[rows], y[rows])
    monitor, watched = pg.callbacks.GradientMonitor(every=1, validation=validation), _model()
    packed = pg.with_ids(x, y, ids=ids)
    watched.fit(**packed, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
    table = monitor.samples()
    assert table.ids.tolist() == ids.tolist() and set(table["count"]) == {3}
    np.testing.assert_allclose(table["self_influence"], influence, rtol=1e-9)
    np.testing.assert_allclose(table["alignment"], alignment, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["norm"], norms, rtol=1e-9)


@pytest.mark.usefixtures("deterministic")
def test_a_validation_gradient_leaves_the_training_alone():
    found = []
    for options in (None, {}, {"validation": _data(5, seed=1)}):
        model, monitor = _model(), []
        if options is not None:
            monitor = [pg.callbacks.GradientMonitor(every=2, **options)]
        model.fit(*_data(), epochs=3, batch_size=4, verbose=0, callbacks=monitor)
        found.append(state_of(model))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_too_many_rows_are_said_once():
    monitor = pg.callbacks.GradientMonitor(every=1, max_ids=5)
    with pytest.warns(pg.PerGradWarning, match=r"larger `max_ids`.* It is 5.*Received: ") as said:
        _model().fit(*_data(), epochs=3, batch_size=4, verbose=0, callbacks=[monitor])
    assert len([each for each in said if "max_ids" in str(each.message)]) == 1
    assert len(monitor.samples()) == 5


@pytest.mark.parametrize("max_ids", [0, 1.5, True])
def test_a_number_of_rows_that_makes_no_sense(max_ids):
    with pytest.raises(pg.PerGradError, match=r"at least 1. Received: max_ids="):
        pg.callbacks.GradientMonitor(max_ids=max_ids)
