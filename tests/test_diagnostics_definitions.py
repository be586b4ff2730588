"""What a monitor records in `fit` equals its definition on the sample gradients themselves."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from keras_pergrad.diagnostics._pairs import Pairs
from tests import twins
from tests.measured import seen
from tests.monitored import Before, Monitor, watched
from tests.problems import by_name, floats

pytestmark = pytest.mark.usefixtures("float64")
# float64 of sums in another order; square roots of what cancels lose half of the digits.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}
OF_RUNS = ("loss_change", "loss_change_predicted", "loss_change_ratio")


def _two_outputs(functional, sequential):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    hidden = layers.Dense(4, "tanh", kernel_regularizer="l2")(layers.add([left, right]))
    outputs = {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    return functional({"left": left, "right": right}, outputs)


def _noise(functional, sequential):
    hidden = layers.Dense(6, "tanh", kernel_regularizer="l2")
    noise = layers.Dropout(0.3), layers.GaussianNoise(0.2)
    return sequential([keras.Input((3,)), hidden, *noise, layers.Dense(2)])


def _with_batch_norm(functional, sequential):
    start = keras.Input((3,))
    hidden = layers.BatchNormalization()(layers.Dense(4)(start))
    return functional(start, layers.Dense(2)(hidden))


def _vae(name):
    """A problem's model with measuring in its class."""

    def make(functional, sequential):
        return by_name(name).build()

    return make


def _two_batch():
    x = {"left": floats(6, 3, seed=1), "right": floats(6, 3, seed=2)}
    return x, {"a": floats(6, 2, seed=3), "b": floats(6, 1, seed=4)}, None


def _weighted():
    x, y, weight = twins.data()
    return x[:6], y[:6], weight[:6]


def _unweighted():
    return *_weighted()[:2], None


# make, batch, what `compile` is given, engine by hand, whether the losses are known by hand.
CASES = {
    "weights": (twins.dense, _weighted, {}, "loop"),
    "several_inputs_and_outputs": (
        _two_outputs,
        _two_batch,
        {"loss": {"a": "mse", "b": "mae"}, "loss_weights": {"a": 1.0, "b": 0.3}},
        "loop",
    ),
    "regularizers_and_noise": (_noise, _weighted, {}, "loop"),
    "batch_normalization": (_with_batch_norm, _unweighted, {}, "auto"),
    "vae": (_vae("vae_compute_loss"), by_name("vae_compute_loss").batch, {"loss": None}, "loop"),
    "noise_in_loss": (
        _vae("vae_noise_in_loss"),
        by_name("vae_noise_in_loss").batch,
        {"loss": None},
        "loop",
    ),
}


def _fit(batch, before):
    x, y, weight = batch
    size = len(keras.tree.flatten(x)[0])
    options = {"batch_size": size, "epochs": 2, "shuffle": False, "verbose": 0}
    return lambda model, callbacks: model.fit(
        x, y, sample_weight=weight, callbacks=[*callbacks, before], **options
    )


def _materialized(model, state, batch, engine):
    """Sample gradients by hand of the model as it was before a step, `[B, P]`, and their sizes."""
    for variable, value in state:
        variable.assign(value)
    found = pg.per_sample_gradients(model, *batch, engine=engine)
    parts = [np.asarray(each) for each in found.materialize().values()]
    flat = [part.reshape(len(part), -1) for part in parts]
    return np.concatenate(flat, axis=1), [part.shape[1] for part in flat], found


@pytest.mark.thinned(2)
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_all_numbers_by_their_definitions(case):
    make, make_batch, options, engine = case
    batch, before = make_batch(), Before()
    model, monitor, _ = watched(make, fit=_fit(batch, before), **options)
    assert [record.step for record in monitor.records] == [0, 1]
    for record, state in zip(monitor.records, before.states, strict=True):
        rows, columns, found = _materialized(model, state, batch, engine)
        expected = seen(rows, columns, found.variables).record()
        _expect_numbers(record.values, expected.values)
        assert record.groups.keys() == expected.groups.keys()
        assert len(record.groups) > len(columns)  # layers and variables
        for name, numbers in expected.groups.items():
            _expect_numbers(record.groups[name], numbers)
        for name, terms in expected.noise.items():
            np.testing.assert_allclose(record.noise[name], terms, **CLOSE)
        _expect_rows(monitor, record, rows, seen(rows, columns, found.variables).contributions)


def _expect_numbers(found: dict, expected: dict) -> None:
    assert set(expected) == set(found) - set(OF_RUNS) and "grad_effective_rank" in expected
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **CLOSE, err_msg=name)


def _expect_rows(monitor, record, rows, contributions) -> None:
    norms = np.linalg.norm(rows, axis=1)
    assert record.rows
    for row in record.rows:
        if row.step == record.step:
            at = np.abs(norms - row.norm).argmin()
            np.testing.assert_allclose(row.norm, norms[at], rtol=1e-9)
            np.testing.assert_allclose(row.contribution, contributions[at], **CLOSE)


@pytest.mark.parametrize("every_weight", ["some", "one is zero"])
def test_numbers_without_sample_weights(every_weight):
    """`g_i/w_i` are the gradients of the same batch without weights; of weight 0, nothing."""
    before, (x, y, weight) = Before(), _weighted()
    if every_weight == "one is zero":
        weight = np.where(np.arange(len(weight)) == 2, 0.0, weight)
    monitor = Monitor("full", every=1, by_variable=True, unweighted=True)
    model, *_ = watched(twins.dense, fit=_fit((x, y, weight), before), monitor=monitor)
    for record, state in zip(monitor.records, before.states, strict=True):
        rows, columns, found = _materialized(model, state, (x, y), "loop")
        rows = rows * (weight > 0)[:, None]
        expected = seen(rows, columns, found.variables).record()
        known = {name: value for name, value in expected.values.items() if name != "grad_gsnr"}
        _expect_numbers({k: v for k, v in record.values.items() if k != "grad_gsnr"}, known)
        assert np.isnan(record.values["grad_gsnr"]) and record.zero == int((weight == 0).sum())
        for name, terms in expected.noise.items():
            np.testing.assert_allclose(record.noise[name], terms, **CLOSE)
        losses = np.asarray(found.losses)
        for row in (row for row in record.rows if row.step == record.step):
            at = np.abs(np.linalg.norm(rows, axis=1) - row.norm).argmin()
            np.testing.assert_allclose(row.loss, losses[at], rtol=1e-9)


def test_pairs_in_groups_beyond_the_budget_are_not_known():
    """Two layers' matrices of 6 samples take 576 bytes; the model's alone is always made."""
    batch, options = _weighted(), {"level": "full", "every": 1}
    known, unknown = (
        watched(twins.dense, fit=_fit(batch, Before()), monitor=Monitor(**options, **more))[1]
        for more in ({"memory_budget": 576}, {"memory_budget": 575})
    )
    for one, other in zip(known.records, unknown.records, strict=True):
        _expect_numbers(other.values | {n: None for n in OF_RUNS}, _without(one.values))
        assert one.alike == other.alike
        for numbers, others in zip(one.groups.values(), other.groups.values(), strict=True):
            lost = [n for n in numbers if np.isnan(others[n]) and not np.isnan(numbers[n])]
            assert lost == list(Pairs.names)


def _without(numbers: dict) -> dict:
    return {name: value for name, value in numbers.items() if name not in OF_RUNS}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["weights", "vae", "several_inputs_and_outputs"])
def test_losses_of_rows(name):
    make, make_batch, options, engine = CASES[name]
    batch, before = make_batch(), Before()
    model, monitor, _ = watched(make, fit=_fit(batch, before), **options)
    for record, state in zip(monitor.records, before.states, strict=True):
        rows, _, found = _materialized(model, state, batch, engine)
        norms, losses = np.linalg.norm(rows, axis=1), np.asarray(found.losses)
        for row in (row for row in record.rows if row.step == record.step):
            at = np.abs(norms - row.norm).argmin()
            np.testing.assert_allclose(row.loss, losses[at], rtol=1e-9)


def test_change_of_the_loss_and_learning_rate():
    """`mean ⟨g_i, Δθ⟩` with SGD is `-lr n2`; the change is that of the whole batch's loss."""
    batch, before = _unweighted(), Before()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.05, 0.01])
    optimizer = keras.optimizers.SGD(schedule)
    model, monitor, history = watched(fit=_fit(batch, before), optimizer=optimizer)
    first, second = monitor.records
    assert [first.learning_rate, second.learning_rate] == pytest.approx([0.05, 0.01], rel=1e-6)
    rows, _, _ = _materialized(model, before.states[0], batch, "loop")
    predicted = -first.learning_rate * (rows.mean(axis=0) ** 2).sum()
    assert first.values["loss_change_predicted"] == pytest.approx(predicted, rel=1e-6)
    by_variable = [
        numbers["loss_change_predicted"]
        for name, numbers in first.groups.items()
        if name.rpartition("/")[2] in ("kernel", "bias")
    ]
    assert len(by_variable) == 4 and sum(by_variable) == pytest.approx(predicted, rel=1e-6)
    change = history["loss"][1] - history["loss"][0]  # of one batch an epoch
    assert first.values["loss_change"] == pytest.approx(change, rel=1e-5)
