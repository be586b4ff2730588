"""What a monitor, its table and its advice make of uses that are unusual, and not wrong."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.monitored import Monitor, in_order, watched
from tests.problems import floats
from tests.twins import data


def _linear(size: int = 3) -> keras.Model:
    model = keras.Sequential([keras.Input((size,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model


def test_a_training_ends_by_the_noise_scale_as_documented():
    stopping = keras.callbacks.EarlyStopping(monitor="grad_noise_scale", mode="max")
    x, y, _ = data()
    history = _linear().fit(x, y[:, :1], verbose=0, callbacks=[Monitor(every=1), stopping])
    assert "grad_noise_scale" in history.history


def test_an_epoch_without_a_measured_step_has_no_numbers():
    x, y, _ = data()
    monitor = Monitor(every=5)
    options = {"batch_size": 4, "epochs": 3, "verbose": 0, "callbacks": [monitor]}
    with pytest.warns(pg.PerGradWarning, match="Received: epoch 2, every=5"):
        history = _linear().fit(x[:12], y[:12, :1], **options).history
    assert [record.epoch for record in monitor.records] == [0, 1]
    assert np.isnan(history["grad_norm_median"]).tolist() == [False, False, True]


def test_steps_that_overshoot_are_said_once():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(2.0), "mse")
    x, y = floats(40, 3, seed=1), floats(40, 1, seed=2)
    options = {"batch_size": 8, "epochs": 2, "verbose": 0}
    with pytest.warns(pg.PerGradWarning, match="raised the loss") as said:
        model.fit(x, y, callbacks=[Monitor("standard", every=1)], **options)
    assert len(said) == 1 and "Received: epoch 0, -" in str(said[0].message)
    model.fit(x, y, callbacks=[Monitor("standard", every=2)], **options)  # too few to judge by


def _several(weights: dict) -> tuple[keras.Model, dict]:
    start = keras.Input((3,))
    outputs = {name: layers.Dense(1, name=name)(start) for name in ("a", "b")}
    model = keras.Model(start, outputs)
    model.compile("sgd", {"a": "mse", "b": "mse"})
    return model, {"y": {name: floats(8, 1, seed=2) for name in outputs}} | weights


def _one(*inner, **options) -> tuple[keras.Model, dict]:
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(1)])
    model.compile("sgd", **{"loss": "mse", **options})
    return model, {"y": floats(8, 1, seed=2), "sample_weight": WEIGHT}


WEIGHT = np.linspace(0.1, 3, 8)
STAY = {
    "several outputs": lambda: _several({"sample_weight": {"a": WEIGHT, "b": WEIGHT}}),
    "samples meet": lambda: _one(layers.BatchNormalization()),
    "activity regularizer": lambda: _one(layers.Dense(2, activity_regularizer="l2")),
    "divides by their sum": lambda: _one(
        loss=keras.losses.MeanSquaredError("mean_with_sample_weight")
    ),
    "cannot be asked": lambda: _one(loss=lambda y, y_pred: keras.ops.sum((y - y_pred) ** 2)),
}


@pytest.mark.parametrize("reason", STAY)
def test_weights_that_cannot_be_taken_out_stay_in_and_it_is_said(reason):
    records = []
    for unweighted in (False, True):
        keras.utils.set_random_seed(0)
        model, data = STAY[reason]()
        monitor = Monitor("standard", every=1, unweighted=unweighted)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", pg.PerGradWarning)
            model.fit(floats(8, 3, seed=1), **data, shuffle=False, verbose=0, callbacks=[monitor])
        told = [str(each.message) for each in said if "stay in them" in str(each.message)]
        assert len(told) == unweighted and all(reason in text for text in told)
        records.append([record.values for record in monitor.records])
    assert str(records[0]) == str(records[1])


def test_a_monitor_that_never_meets_an_update_says_so():
    x, y, _ = data()
    options = {"batch_size": 2, "verbose": 0}
    for every, accumulated in ((4, 2), (3, 2)):
        optimizer = keras.optimizers.SGD(1e-3, gradient_accumulation_steps=accumulated)
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        model.compile(optimizer, "mse")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", pg.PerGradWarning)
            model.fit(x, y, callbacks=[Monitor("standard", every=every)], **options)
        told = ["gradient_accumulation_steps=2" in str(each.message) for each in said]
        assert any(told) == (every == 4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_planted_rows_head_the_table_of_tiny_batches(size):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 3)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 * rng.normal(size=(64, 1))
    y[11] += 50
    y[3] -= 40
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), "mse", per_sample=None)
    monitor = Monitor(every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # of batches of one
        model.fit(**pg.with_ids(x, y), batch_size=size, epochs=3, verbose=0, callbacks=[monitor])
    assert {row.id for row in monitor.outliers()[:2]} == {11, 3}


def test_a_nan_in_a_row_is_in_no_number_and_named_with_its_layer():
    def fit(model, callbacks):
        x, y, _ = data()
        x[5] = np.nan
        return model.fit(x, y, batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)

    monitor = Monitor("full", every=1, scalars="all")
    with pytest.warns(pg.PerGradWarning, match=r"first in '.*dense'"):
        watched(fit=fit, monitor=monitor, optimizer=keras.optimizers.SGD(0.0))
    record = monitor.records[0]
    assert record.non_finite and record.non_finite_in.endswith("dense")
    assert np.isnan(record.values["grad_gsnr"])


def test_the_rows_that_are_most_alike():
    x, y = floats(8, 3, seed=1), floats(8, 1, seed=2)
    x[6], y[6] = x[2], y[2]
    monitor = Monitor("full", every=1)
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", per_sample=None)
    model.fit(**pg.with_ids(x, y), batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    [record] = monitor.records
    assert sorted(record.alike) == [2, 6]
    assert record.values["grad_most_alike"] == pytest.approx(1.0, abs=1e-6)


def test_a_step_that_overflows_under_a_loss_scale_has_no_record():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(1)])
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(1e-4), initial_scale=2.0**24, dynamic_growth_steps=1000
        )
        model.compile(optimizer, "mse")
        x, y, _ = data()
        monitor = Monitor(every=1)
        with pytest.warns(pg.PerGradWarning, match="overflowed in float16"):
            model.fit(x, 3 * y[:, :1], batch_size=4, epochs=6, verbose=0, callbacks=[monitor])
        assert monitor.records and not any(record.non_finite for record in monitor.records)
    finally:
        keras.mixed_precision.set_global_policy("float32")


# --- advice ---


def test_advice_where_there_is_nothing_to_tell():
    x = floats(8, 3, seed=1)
    still, alike = Monitor(every=1), Monitor(every=1)
    model = _linear()
    model.fit(x, model.predict(x, verbose=0), verbose=0, callbacks=[still])
    assert "nothing to learn" in still.noise_scale().advice
    _linear().fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[alike])
    assert "one of them would do" in alike.noise_scale().advice
    with pytest.raises(pg.PerGradError, match=r"Did you mean 'model'.*Received: 'modell'"):
        alike.noise_scale("modell")
    with pytest.raises(pg.PerGradError, match="Received: last=0"):
        alike.noise_scale(last=0)


def test_no_advice_by_contributions_that_do_not_exist():
    def dice(y, y_pred):
        return 1 - 2 * keras.ops.sum(y * y_pred) / keras.ops.sum(y + y_pred)

    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, "sigmoid")])
    model.compile("sgd", dice)
    monitor = Monitor(every=1)
    with pytest.warns(pg.PerGradWarning, match="cannot be told apart"):
        model.fit(
            floats(16, 3), (floats(16, 2) > 0).astype("float32"), verbose=0, callbacks=[monitor]
        )
    assert monitor.noise_scale().steps == 0


# --- data and files ---


def test_a_repeated_dataset_is_refused():
    x, y, _ = data()
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(pg.DataError, match=r"repeat what comes back.*Received: a Repeat"):
        pg.with_ids(rows.repeat(2).batch(4))
    assert len(list(pg.with_ids(rows.batch(4)).repeat(2))) == 2 * len(list(rows.batch(4)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).shuffle(9).batch(4), "shuffled"),
        (lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)), "batches"),
        (lambda x, y: (x, y), "inputs alone"),
    ],
    ids=["shuffled", "rows", "pair"],
)
def test_what_locate_cannot_read_is_refused(make, said):
    x, y, _ = data()
    with pytest.raises(pg.DataError, match=f"{said}.*Received"):
        pg.locate(make(x, y), [1])


def test_rows_of_packed_arrays_are_located():
    x, y, _ = data()
    marks = np.asarray(pg.rows.fingerprints(x))
    np.testing.assert_array_equal(pg.locate(pg.with_ids(x, y), marks), np.arange(len(x)))


def test_scores_of_lists_of_rows_and_of_a_path_that_cannot_be_written(tmp_path):
    x, y, _ = data()
    with pytest.raises(pg.DataError, match=r"np.asarray\(x\).*Received"):
        pg.score_dataset(_linear(), x.tolist(), y[:, :1].tolist(), verbose=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(pg.DataError, match=r"cannot be written.*Received"):
        pg.score_dataset(_linear(), x, y[:, :1], path=tmp_path / "file" / "scores", verbose=0)


def test_a_folder_in_the_place_of_a_file_of_records(tmp_path):
    model, _, _ = watched(level="norms")
    monitor = Monitor(every=1, jsonl=tmp_path)
    with pytest.warns(pg.PerGradWarning, match="cannot be written"):
        in_order(model, [monitor])
    assert monitor.records
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(pg.DataError, match="no record"):
        (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\n{}\n")
        pg.load_records(tmp_path / "bytes")


@pytest.mark.slow
def test_a_batch_beyond_the_room_under_xla_is_said_once_and_trained():
    x, y = floats(6000, 3, seed=1), floats(6000, 1, seed=2)
    model, monitor = _linear(), Monitor(every=1)
    model.jit_compile = True
    with pytest.warns(pg.PerGradWarning, match=r"Received: more than about 4,096 samples") as said:
        model.fit(x, y, batch_size=6000, epochs=2, verbose=0, callbacks=[monitor])
    assert sum("4,096" in str(each.message) for each in said) == 1 and not monitor.records
    model.fit(x[:64], y[:64], batch_size=32, verbose=0, callbacks=[monitor])
    assert [record.size for record in monitor.records] == [32, 32]
