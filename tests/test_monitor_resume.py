"""R10: a training that was stopped goes on, with the weights and records of one that was not."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import keras_pergrad as pg
from tests.monitored import Monitor, expect_records_equal, watched
from tests.processes import run_code
from tests.twins import data

pytestmark = pytest.mark.usefixtures("deterministic")
EPOCHS, STEPS = 4, 4


def _batches(model, callbacks, start: int, stop: int, epoch: int = 0):
    """Trains on batches `start … stop - 1` of an endless row of them."""
    x, y, _ = data()
    order = np.arange(start * 3, stop * 3) % len(x)
    options = {"batch_size": 3, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    return model.fit(x[order], y[order], epochs=epoch + 1, initial_epoch=epoch, **options)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")
@pytest.mark.parametrize(
    ("k", "every"),
    [(7, 3), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (3, 2), (10, 1)))],
)
def test_stopped_at_a_step_and_loaded(k, every, tmp_path):
    """In the middle of an epoch of 12; what was measured after the checkpoint is measured anew."""
    whole = Monitor("standard", every)
    expected, _, _ = watched(
        fit=lambda m, c: _batches(m, c, 0, 12), monitor=whole, optimizer="adam"
    )
    path, first = (
        tmp_path / "records.jsonl",
        Monitor("standard", every, jsonl=tmp_path / "records.jsonl"),
    )

    def stopped(model, callbacks):
        history = _batches(model, callbacks, 0, k)
        model.save(tmp_path / "model.keras")
        _batches(model, [Monitor("standard", every, jsonl=path)], k, k + 2)  # lost
        return history

    watched(fit=stopped, monitor=first, optimizer="adam")
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[-1][:70])  # killed as it was writing
    model = keras.models.load_model(tmp_path / "model.keras")
    again = Monitor("standard", every, jsonl=path)
    _batches(model, [again], k, 12)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    expect_records_equal(again.records, whole.records)
    expect_records_equal(pg.load_records(path), whole.records)
    # Layers of a loaded model have names of their own.
    one, other = (
        [dataclasses.replace(row, layer="") for row in monitor.outliers()]
        for monitor in (again, whole)
    )
    assert one == other


CODE = """
import os, sys, signal, keras, numpy as np, tensorflow as tf
import keras_pergrad as pg
from tests.monitored import Monitor, watched
from tests.twins import data
tf.config.experimental.enable_op_determinism()

class Killed(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if KILL == int(self.model.optimizer.iterations):
            os.kill(os.getpid(), signal.SIGKILL)

def normalized(functional, sequential):
    first, last = keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)
    return sequential([keras.Input((3,)), first, keras.layers.BatchNormalization(), last])

def fit(model, callbacks):
    x, y, _ = data()
    backup = keras.callbacks.BackupAndRestore(FOLDER + "/backup")
    options = {"batch_size": 4, "epochs": 3, "verbose": 0, "shuffle": False}
    return model.fit(x, y, callbacks=[backup, *callbacks, Killed()], **options)

monitor = Monitor("norms", every=1, jsonl=FOLDER + "/records.jsonl")
model, _, history = watched(normalized, fit=fit, monitor=monitor, optimizer="adam")
np.savez(FOLDER + "/weights.npz", *model.get_weights())
assert len(monitor.records) == 12, len(monitor.records)
"""


def _run(folder, kill: int) -> int:
    folder.mkdir(exist_ok=True)
    result = run_code(f"FOLDER = {str(folder)!r}\nKILL = {kill}\n{CODE}")
    if kill < 0:
        assert result.returncode == 0, result.stderr[-3000:]
    return result.returncode


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    "kill", [6, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 4, 5, 8, 11))]
)
def test_killed_and_restored_from_a_backup(kill, tmp_path):
    """Without warning, between two checkpoints. Keras' backups have no seeds, so without noise."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _run(whole, -1)
    assert _run(parts, kill) == -9
    _run(parts, -1)
    one, other = np.load(whole / "weights.npz"), np.load(parts / "weights.npz")
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    found = pg.load_records(parts / "records.jsonl")
    expect_records_equal(found, pg.load_records(whole / "records.jsonl"))


def test_accumulated_gradients_are_counted_as_steps(tmp_path):
    """The optimizer's public count is of updates."""
    path = tmp_path / "records.jsonl"

    def fit(model, callbacks):
        _batches(model, callbacks, 0, 6)
        return _batches(model, [Monitor(every=1, jsonl=path)], 6, 9, epoch=1)

    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=3)
    watched(fit=fit, monitor=Monitor(every=1, jsonl=path), optimizer=optimizer)
    assert [record.step for record in pg.load_records(path)] == list(range(9))


def _written(tmp_path):
    path = tmp_path / "records.jsonl"
    _, monitor, _ = watched(monitor=Monitor("full", 1, jsonl=path, by_variable=True))
    return path, list(monitor.records)


def test_files_that_were_cut_or_begun_anew(tmp_path):
    path, records = _written(tmp_path)
    expect_records_equal(pg.load_records(path), records)
    lines = path.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    for cut in (1, 3, 8, len(lines[4]) // 2, lines[4].index("}") + 1, len(lines[4]) - 1):
        path.write_text("\n".join(lines[:4]) + "\n" + lines[4][:cut])
        expect_records_equal(pg.load_records(path), records[:4])
        # Another run went on from step 3: after the cut line, on a line of its own.
        path.write_text("\n".join([*lines[:4], lines[4][:cut], *lines[3:]]) + "\n")
        expect_records_equal(pg.load_records(path), records)
    path.write_text("\n".join([*lines, lines[0], lines[1]]) + "\n")
    expect_records_equal(pg.load_records(path), records[:2])


def test_a_file_of_something_else(tmp_path):
    path, _ = _written(tmp_path)
    text = path.read_text()
    for other in ("hello\n", '{"a": 1}\n', "[]\n"):
        path.write_text(other + text)
        with pytest.raises(pg.DataError, match="Line 1 is no record"):
            pg.load_records(path)
    with pytest.raises(pg.DataError, match="no such file"):
        pg.load_records(tmp_path / "nowhere.jsonl")
    path.write_text("")
    assert pg.load_records(path) == []
