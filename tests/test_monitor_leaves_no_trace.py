"""R6 with a monitor: a training that is watched is, to the last bit, the one that is not."""

import itertools

import keras
import numpy as np
import pytest

import keras_pergrad as pg
from tests import twins
from tests.figures.training import growth_in
from tests.figures.watched import WAYS
from tests.monitored import (
    PLAIN,
    Monitor,
    expect_untouched,
    in_order,
    plainly,
    shuffled,
    watched,
)

# Keras reads weights from HDF5 as NumPy 2 has come to discourage.
NUMPY = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
OURS = {"_per_grad", "train_step", "test_step", "make_train_function", "_symbolic_build"}
MEASURING = (pg.PerGradModel, pg.PerGradSequential)


# The others are slow.
QUICK = (
    (twins.noisy, "graph", "full", 1),
    (twins.dense, "steps", "standard", 3),
    (twins.sampling, "eager", "norms", 1),
)
ALL = itertools.product(
    (twins.dense, twins.sampling, twins.noisy), WAYS, ("norms", "standard", "full"), (1, 3)
)


@pytest.mark.thinned(2)
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    ("make", "way", "level", "every"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in ALL],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_bits_of_plain_keras(make, way, level, every):
    options = {"optimizer": "adam", "metrics": ["mae"], "fit": shuffled, **WAYS[way]}
    monitor = Monitor(level, every)
    found, _, history = watched(make, monitor=monitor, classes=PLAIN, **options)
    expect_untouched(plainly(make, **options), (found, history))
    assert monitor.records
    assert not any(name.startswith("val_grad") for name in history)
    assert not OURS & set(vars(found)) and found.train_function is None


@pytest.mark.parametrize("classes", [PLAIN, MEASURING], ids=["plain", "measuring"])
def test_nothing_is_left_and_the_next_fit_is_plain(classes):
    model, monitor, _ = watched(level="norms", classes=classes)
    count = len(monitor.records)
    assert getattr(model, "_per_grad", None) is None and model.train_function is None
    history = in_order(model, []).history
    assert list(history) == ["loss"] and len(monitor.records) == count


class Raising(keras.callbacks.Callback):
    """Ends a training at its third batch, as an error or an interrupt does."""

    def __init__(self, error):
        super().__init__()
        self.error, self.count = error, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == 3:
            raise self.error


@pytest.mark.thinned(2)
@pytest.mark.parametrize("classes", [PLAIN, MEASURING], ids=["plain", "measuring"])
@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()], ids=repr)
def test_the_next_fit_after_an_error_is_clean(classes, error):
    monitor = Monitor(every=1)

    def fit(model, callbacks):
        with pytest.raises(type(error)):
            in_order(model, [*callbacks, Raising(error)])
        assert len(monitor.records) == 3
        return in_order(model, [])

    model, _, history = watched(fit=fit, monitor=monitor, classes=classes)
    assert list(history) == ["loss"] and len(monitor.records) == 3
    assert not OURS & set(vars(model)) or model._per_grad is None
    in_order(model, [monitor])
    assert [record.step for record in monitor.records] == [0, 1, 2, *range(11, 19)]


@pytest.mark.parametrize("classes", [PLAIN, MEASURING], ids=["plain", "measuring"])
@pytest.mark.filterwarnings(NUMPY)
def test_what_is_saved_meanwhile_is_plain(classes, tmp_path):
    saving = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))

    def fit(model, callbacks):
        return in_order(model, [*callbacks, saving])

    model, _, _ = watched(fit=fit, level="norms", classes=classes)
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert type(loaded) is type(model)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    x, y, _ = twins.data()
    assert list(loaded.fit(x, y, verbose=0).history) == ["loss"]


def test_evaluate_and_predict_with_a_monitor():
    model, monitor, _ = watched(level="norms", classes=PLAIN)
    count, (x, y, _) = len(monitor.records), twins.data()
    plain = model.evaluate(x, y, verbose=0)
    assert model.evaluate(x, y, verbose=0, callbacks=[monitor]) == plain
    model.predict(x, verbose=0, callbacks=[monitor])
    assert len(monitor.records) == count and not OURS & set(vars(model))


def test_a_monitor_may_be_written_to_logs_and_ends_a_training_early():
    stopping = keras.callbacks.EarlyStopping(monitor="grad_norm_max", mode="max", patience=0)

    def fit(model, callbacks):
        options = {"epochs": 9, "verbose": 0, "callbacks": [*callbacks, stopping]}
        return model.fit(*twins.data()[:2], **options)

    _, _, history = watched(fit=fit, level="norms", optimizer="sgd")
    assert len(history["grad_norm_max"]) < 9


def test_keys_of_logs_are_there_before_anything_was_measured(tmp_path):
    """Else a log of columns, made at the first epoch, would lack them."""
    model, _, _ = watched(level="norms")
    monitor = Monitor(every=50)
    with pytest.warns(pg.PerGradWarning, match="shorter than `every`.*Received: epoch 0, every=50"):
        history = in_order(model, [monitor]).history
    assert all(len(column) == 2 for column in history.values())
    assert np.isnan(history["grad_norm_max"]).all() and not monitor.records


def test_memory_and_traces():
    """A short form of R9."""
    monitor = Monitor(every=5)
    growth, traces = growth_in(500, "sgd", callbacks=[monitor], after=200)
    assert len(monitor.records) == 100 and traces <= 4
    assert growth < 8  # MiB, as R9 allows in 20,000 steps
