"""A training that is stopped and goes on, against one that is not."""

import dataclasses
from pathlib import Path

import keras
import numpy as np

import keras_pergrad as pg
from tests.monitored import Monitor, expect_records_equal, watched
from tests.processes import run_code
from tests.twins import data


def train_on_batches(model, callbacks, start: int, stop: int, epoch: int = 0):
    """Trains on batches `start … stop - 1` of an endless row of them."""
    x, y, _ = data()
    order = np.arange(start * 3, stop * 3) % len(x)
    options = {"batch_size": 3, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    return model.fit(x[order], y[order], epochs=epoch + 1, initial_epoch=epoch, **options)


def stopped_and_loaded(k: int, every: int, folder: Path) -> None:
    """In the middle of an epoch of 12; what was measured after the checkpoint is measured anew."""
    whole = Monitor("standard", every)
    expected, _, _ = watched(
        fit=lambda m, c: train_on_batches(m, c, 0, 12), monitor=whole, optimizer="adam"
    )
    path, first = (
        folder / "records.jsonl",
        Monitor("standard", every, jsonl=folder / "records.jsonl"),
    )

    def stopped(model, callbacks):
        history = train_on_batches(model, callbacks, 0, k)
        model.save(folder / "model.keras")
        train_on_batches(model, [Monitor("standard", every, jsonl=path)], k, k + every)  # lost
        return history

    watched(fit=stopped, monitor=first, optimizer="adam")
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[-1][:70])  # killed as it was writing
    model = keras.models.load_model(folder / "model.keras")
    again = Monitor("standard", every, jsonl=path)
    train_on_batches(model, [again], k, 12)
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


def killed_and_restored(kill: int, folder: Path) -> None:
    """Without warning, between two checkpoints. Keras' backups have no seeds, so without noise."""
    whole, parts = folder / "whole", folder / "parts"
    _run(whole, -1)
    assert _run(parts, kill) == -9
    _run(parts, -1)
    one, other = np.load(whole / "weights.npz"), np.load(parts / "weights.npz")
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    found = pg.load_records(parts / "records.jsonl")
    expect_records_equal(found, pg.load_records(whole / "records.jsonl"))
