"""A monitor records the same numbers however `fit` is asked to train."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.cases import set_dtype
from tests.monitored import Monitor, expect_records_equal, in_order, watched
from tests.problems import floats
from tests.twins import data, dense

pytestmark = pytest.mark.usefixtures("float64")
CLOSE = 1e-9  # float64; roots of what cancels keep half of the digits less


class Sequence(keras.utils.PyDataset):
    """The rows in batches of four."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return tuple(part[4 * index : 4 * index + 4] for part in data())


def _dataset():
    return tf.data.Dataset.from_tensor_slices(data()).batch(4)


def _of(make_data):
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    return lambda model, callbacks: model.fit(make_data(), callbacks=callbacks, **options)


def _attached(model, callbacks):
    with pg.attach(model, pg.PerSample(check="off")):
        return in_order(model, callbacks)


def _by_name(functional, sequential):
    start = {"x": keras.Input((3,), name="x")}
    hidden = layers.Dense(4, "tanh")(start["x"])
    return functional(start, layers.Dense(2)(hidden))


def _in_dict(model, callbacks):
    x, y, weight = data()
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit({"x": x}, y, sample_weight=weight, callbacks=callbacks, **options)


PLAIN = (keras.Model, keras.Sequential)
WAYS = {
    "eager": {"run_eagerly": True},
    "two_steps": {"steps_per_execution": 2},
    "three_steps": {"steps_per_execution": 3},
    "tf_data": {"fit": _of(_dataset)},
    "pydataset": {"fit": _of(Sequence)},
    "dict_inputs": {"make": _by_name, "fit": _in_dict},
    "plain_keras": {"classes": PLAIN},
    "attached": {"classes": PLAIN, "fit": _attached},
    "checked": {"per_sample": pg.PerSample(check=2)},
    "mean_applied": {"per_sample": pg.PerSample(aggregator="mean")},
    "vectorized": {"monitor": lambda: Monitor("full", 1, by_variable=True, engine="vectorized")},
    "xla": {"jit_compile": True, "marks": pytest.mark.slow},
    "xla_steps": {"jit_compile": True, "steps_per_execution": 2, "marks": pytest.mark.slow},
}


@pytest.fixture(scope="module")
def expected():
    """Of `fit` in a graph, with a measuring model and arrays."""
    found = {}

    def records(make):
        if make not in found:
            fit = _in_dict if make is _by_name else None
            found[make] = list(watched(make, fit=fit)[1].records)
        return found[make]

    return records


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "way",
    [pytest.param(way, id=name, marks=way.get("marks", ())) for name, way in WAYS.items()],
)
def test_the_same_numbers(way, expected):
    way = {name: value for name, value in way.items() if name != "marks"}
    make = way.pop("make", dense)
    if "monitor" in way:
        way["monitor"] = way["monitor"]()
    _, monitor, _ = watched(make, **way)
    one = expected(make)
    assert len(one) == 8 and one[3].size == 2  # the last batch of an epoch is not full
    expect_records_equal(monitor.records, one, CLOSE)


def test_every_third_step_records_the_same_of_it(expected):
    _, monitor, history = watched(monitor=Monitor("full", every=3, by_variable=True))
    some = [record for record in expected(dense) if record.step % 3 == 0]
    assert [record.step for record in monitor.records] == [0, 3, 6]
    for a, b in zip(monitor.records, some, strict=True):
        np.testing.assert_allclose(list(a.values.values()), list(b.values.values()), rtol=CLOSE)
    # The second epoch has step 6 alone.
    assert history["grad_norm_max"][1] == pytest.approx(some[2].values["grad_norm_max"])


def test_two_monitors_in_one_fit(expected):
    fast, slow = Monitor("full", 1, by_variable=True), Monitor("norms", 2)
    watched(monitor=fast, fit=lambda model, callbacks: in_order(model, [*callbacks, slow]))
    expect_records_equal(fast.records, expected(dense), CLOSE)
    assert [record.step for record in slow.records] == [0, 2, 4, 6]
    assert slow.records[1].values["grad_norm_max"] == fast.records[2].values["grad_norm_max"]


def test_gradient_accumulation_is_measured_at_each_step():
    """Two steps see the same weights: the second as if the first had not moved them."""
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    _, monitor, _ = watched(optimizer=optimizer)
    _, still, _ = watched(optimizer=keras.optimizers.SGD(0.0))
    assert [record.step for record in monitor.records] == list(range(8))
    for k in (0, 1):
        for name, value in still.records[k].values.items():
            if "loss_change" not in name:
                found = monitor.records[k].values[name]
                np.testing.assert_allclose(found, value, rtol=CLOSE, err_msg=name)
    norms = [record.values["grad_norm_mean"] for record in monitor.records]
    assert norms[2] != pytest.approx(still.records[2].values["grad_norm_mean"], rel=1e-6)


def test_bfloat16_to_its_precision():
    set_dtype("float32")  # whose weights begin as those of bfloat16
    _, whole, _ = watched()
    keras.config.set_dtype_policy("mixed_bfloat16")
    _, monitor, _ = watched()
    # Eight bits of mantissa, four products one after the other.
    for a, b in zip(monitor.records, whole.records, strict=True):
        for name in ("grad_norm_median", "grad_norm_max", "grad_concentration"):
            assert a.values[name] == pytest.approx(b.values[name], rel=5e-2)


@pytest.mark.parametrize("steps", [1, 3])
def test_planted_rows_head_the_table_at_every_epoch(steps):
    """Under shuffle, by their ids, from the first epoch on."""
    x = floats(128, 3, seed=1)
    y = x @ np.array([[1.0], [-1.0], [0.5]]) + 0.1 * floats(128, 1, seed=2)
    y[17] += 50
    y[90] -= 40
    heads = []
    monitor = Monitor(every=1)

    def look(epoch, logs):
        heads.append([row.id for row in monitor.outliers()[:2]])

    def fit(model, callbacks):
        each = keras.callbacks.LambdaCallback(on_epoch_end=look)
        options = {"batch_size": 32, "epochs": 4, "verbose": 0, "callbacks": [*callbacks, each]}
        return model.fit(**pg.with_ids(x, y), **options)

    def make(functional, sequential):
        return sequential([keras.Input((3,)), layers.Dense(1)])

    optimizer = keras.optimizers.SGD(0.01)
    watched(make, fit=fit, monitor=monitor, optimizer=optimizer, steps_per_execution=steps)
    assert len(heads) == 4 and all(set(head) == {17, 90} for head in heads)
    ids = np.concatenate([[row.id for row in record.rows] for record in monitor.records])
    assert set(ids) <= set(range(128))
