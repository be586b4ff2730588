"""What a monitor writes for TensorBoard, read back with TensorBoard's own event reader."""

import sys

import keras
import numpy as np
import pytest

import keras_pergrad as pg
from keras_pergrad.callbacks import _board
from tests.problems import floats


def _fitted(monitor, epochs=2):
    model = pg.PerGradSequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = floats(16, 3, seed=1), floats(16, 2, seed=2)
    model.fit(**pg.with_ids(x, y), batch_size=4, epochs=epochs, verbose=0, callbacks=[monitor])
    return monitor


def _read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), {"tensors": 0}).Reload()


def test_scalars_are_those_of_the_records(tmp_path):
    monitor = _fitted(pg.callbacks.GradientMonitor(every=2, log_dir=tmp_path))
    events = _read(tmp_path).Tensors("gradients/grad_norm_median")
    found = {event.step: float(event.tensor_proto.float_val[0]) for event in events}
    wanted = {r.step: r.values["grad_norm_median"] for r in monitor.records}
    assert found == pytest.approx(wanted, rel=1e-6)  # TensorBoard keeps float32


def test_a_histogram_has_every_sample(tmp_path):
    _fitted(pg.callbacks.GradientMonitor(every=4, log_dir=tmp_path))
    events = _read(tmp_path).Tensors("gradients/log10_norms")
    for event in events:
        buckets = np.frombuffer(event.tensor_proto.tensor_content).reshape(-1, 3)
        assert buckets[:, 2].sum() == 4


def test_the_outlier_table_is_text(tmp_path):
    monitor = _fitted(pg.callbacks.GradientMonitor(every=1, log_dir=tmp_path, top_k=3))
    last = _read(tmp_path).Tensors("gradients/outliers")[-1]
    text = last.tensor_proto.string_val[0].decode()
    ids = [line.split(" | ")[0] for line in text.split("\n")[2:]]
    assert ids == [str(row.id) for row in monitor.outliers()]


def test_the_dashboard_is_a_picture(tmp_path):
    _fitted(pg.callbacks.GradientMonitor(every=1, log_dir=tmp_path))
    width, height, png = _read(tmp_path).Tensors("gradients/dashboard")[-1].tensor_proto.string_val
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == int(width) > 300
    assert int.from_bytes(png[20:24], "big") == int(height) > 300


def test_a_directory_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    monitor = pg.callbacks.GradientMonitor(every=1, log_dir=tmp_path / "file")
    with pytest.warns(pg.PerGradWarning, match="training goes on without") as said:
        _fitted(monitor)
    assert len(said) == 1 and len(monitor.records) == 8


def test_tensorboard_missing_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    _board._tensorboard.cache_clear()
    with pytest.raises(pg.PerGradError, match=r"keras_pergrad\[tensorboard\].*Received: "):
        pg.callbacks.GradientMonitor(log_dir=tmp_path)
    _board._tensorboard.cache_clear()
