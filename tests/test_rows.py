"""Ids travel with the data, and fingerprints are the same wherever a row is seen."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pergrad as pg
from keras_pergrad.rows import fingerprints, unpacked
from tests.monitored import Monitor
from tests.problems import floats
from tests.twins import BATCH, ROWS, data, dense


def _model(**options):
    keras.utils.set_random_seed(0)
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    options = {"metrics": ["mae"], **options}
    model.compile(keras.optimizers.SGD(0.05), "mse", **options)
    return model


def _fit(model, given, **options):
    options = {"verbose": 0, "epochs": 2, "shuffle": False, **options}
    if isinstance(given, tf.data.Dataset):
        return model.fit(given, **options).history
    return model.fit(**given, batch_size=BATCH, **options).history


def _seen_ids(given, **options) -> list[list[int]]:
    monitor = Monitor(every=1, top_k=ROWS)
    _fit(_model(), given, callbacks=[monitor], epochs=1, **options)
    found = [sorted(row.id for row in record.rows) for record in monitor.records]
    assert [len(ids) for ids in found] == [record.size for record in monitor.records]
    return found


IN_ORDER = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13]]


def _slices():
    return tf.data.Dataset.from_tensor_slices(data())


DATASETS = {
    "batched": lambda: pg.with_ids(_slices().batch(4)),
    "rows": lambda: pg.with_ids(_slices()).batch(4),
    "unbatched": lambda: pg.with_ids(_slices().batch(5).unbatch()).batch(4),
    "rebatched": lambda: pg.with_ids(_slices().batch(7).rebatch(4)),
    "mapped": lambda: pg.with_ids(_slices().batch(4).map(lambda x, y, w: (x, y, w)).prefetch(1)),
    "zipped": lambda: pg.with_ids(
        tf.data.Dataset.zip(
            tuple(tf.data.Dataset.from_tensor_slices(each).batch(4) for each in data()[:2])
        )
    ),
    "joined": lambda: pg.with_ids(_slices().take(8).concatenate(_slices().skip(8)).batch(4)),
    "generated": lambda: pg.with_ids(
        tf.data.Dataset.from_generator(
            lambda: (tuple(part[k : k + 4] for part in data()[:2]) for k in range(0, ROWS, 4)),
            output_signature=(tf.TensorSpec((None, 3)), tf.TensorSpec((None, 2))),
        )
    ),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("make", DATASETS.values(), ids=list(DATASETS))
def test_rows_of_a_dataset_are_counted(make):
    batches = [unpacked(batch)[1].numpy().tolist() for batch in make()]
    assert batches == IN_ORDER
    assert [unpacked(batch)[1].numpy().tolist() for batch in make()] == IN_ORDER  # each epoch


def test_ids_come_to_the_monitor():
    x, y, weight = data()
    assert _seen_ids(pg.with_ids(x, y, weight)) == IN_ORDER
    assert _seen_ids(DATASETS["rows"]()) == IN_ORDER
    ids = 100 - np.arange(ROWS)
    expected = [sorted(int(ids[k]) for k in batch) for batch in IN_ORDER]
    assert _seen_ids(pg.with_ids(x, y, ids=ids)) == expected
    shuffled = _seen_ids(pg.with_ids(x, y), shuffle=True)
    assert sorted(np.concatenate(shuffled)) == list(range(ROWS)) and shuffled != IN_ORDER


def test_a_shuffled_dataset_is_refused():
    for made in (_slices().shuffle(4), _slices().batch(4).shuffle(2).prefetch(1)):
        with pytest.raises(pg.DataError, match="shuffled already"):
            pg.with_ids(made)
    zipped = tf.data.Dataset.zip((_slices().shuffle(3), _slices()))
    with pytest.raises(pg.DataError, match="shuffled already"):
        pg.with_ids(zipped)


def test_what_cannot_be_told_is_refused():
    """Elements of fixed shapes, made by a function: rows of shape [4, 3], or four rows?"""
    signature = tf.TensorSpec((4, 3)), tf.TensorSpec((4, 2))
    made = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=signature)
    with pytest.raises(pg.DataError, match="rows or batches"):
        pg.with_ids(made)
    assert pg.with_ids(made.batch(2)) is not None


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros(ROWS, int), "repeat"),
        (np.arange(ROWS - 1), "Expected: shape"),
        (np.arange(ROWS) + 0.5, "dtype float64"),
        (np.arange(ROWS).reshape(-1, 1), "Expected: shape"),
    ],
    ids=["repeated", "too_few", "fractions", "columns"],
)
def test_ids_that_are_none(ids, message):
    with pytest.raises(pg.DataError, match=message):
        pg.with_ids(*data()[:2], ids=ids)


def test_data_that_is_none():
    x, y, _ = data()
    with pytest.raises(pg.DataError, match="numbers of rows"):
        pg.with_ids(x, y[:-1])
    with pytest.raises(pg.DataError, match=r"beside a tf\.data"):
        pg.with_ids(_slices(), ids=np.arange(ROWS))


@pytest.mark.usefixtures("deterministic")
def test_training_with_ids_is_training_without():
    """With weights, a split, validation data and metrics: the same bits, the same history."""
    x, y, weight = data()
    for options in ({"validation_split": 0.3}, {"validation_data": None}):
        plain, packed = {**options}, {**options}
        if "validation_data" in options:
            plain["validation_data"] = (x[:5], y[:5])
            packed["validation_data"] = tuple(pg.with_ids(x[:5], y[:5]).values())
        one, other = _model(), _model()
        history = _fit(one, {"x": x, "y": y, "sample_weight": weight}, **plain)
        assert _fit(other, pg.with_ids(x, y, weight), **packed) == history
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    given = pg.with_ids(x, y)
    assert one.evaluate(x, y, verbose=0) == other.evaluate(**given, verbose=0)
    assert one.train_on_batch(x, y) == other.train_on_batch(**given)
    assert one.test_on_batch(x, y) == other.test_on_batch(**given)


def test_data_that_have_ids_already_are_refused():
    x, y = data()[:2]
    packed, counted = pg.with_ids(x, y), pg.with_ids(_slices())
    for given in ({"x": packed}, packed, {"x": counted}):
        with pytest.raises(pg.DataError, match=r"have ids already.* Received: what `with_ids`"):
            pg.with_ids(**given)


def test_class_weights_as_keras_takes_them():
    x = data()[0]
    y = np.arange(ROWS) % 2
    class_weight = {0: 3.0, 1: 0.5}

    def model():
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(1, "sigmoid")
        made = pg.PerGradSequential([keras.Input((3,)), layer])
        made.compile("sgd", "binary_crossentropy")
        return made

    expected = _fit(model(), {"x": x, "y": y, "class_weight": class_weight})
    assert _fit(model(), pg.with_ids(x, y, class_weight=class_weight)) == expected


def test_weights_of_several_outputs_and_of_steps():
    """As Keras takes them: one array for each output, or one number a step of a sequence."""
    x = data()[0]

    def two():
        keras.utils.set_random_seed(0)
        start = keras.Input((3,))
        outputs = {name: keras.layers.Dense(1, name=name)(start) for name in "ab"}
        made = pg.PerGradModel(start, outputs)
        made.compile("sgd", {"a": "mse", "b": "mae"})
        return made

    y = {name: floats(ROWS, 1, seed=k) for k, name in enumerate("ab", 3)}
    one = np.linspace(0.5, 2, ROWS)
    for weight in (one, {"a": one, "b": one[::-1].copy()}):
        given = {"x": x, "y": y, "sample_weight": weight}
        assert _fit(two(), pg.with_ids(**given)) == _fit(two(), given)

    def steps():
        keras.utils.set_random_seed(0)
        made = pg.PerGradSequential([keras.Input((5, 3)), keras.layers.Dense(1)])
        made.compile("sgd", "mse")
        return made

    given = {
        "x": floats(ROWS, 5, 3),
        "y": floats(ROWS, 5, 1),
        "sample_weight": floats(ROWS, 5) ** 2,
    }
    assert _fit(steps(), pg.with_ids(**given)) == _fit(steps(), given)


def test_no_targets_and_nested_inputs():
    given = pg.with_ids({"a": np.zeros((4, 3)), "b": [np.zeros(4)]})
    assert list(given) == ["x", "y"]
    x, y, weight = keras.utils.unpack_x_y_sample_weight(unpacked((given["x"], given["y"]))[0])
    assert x is given["x"] and y is None and weight is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "bool"])
def test_fingerprints_are_the_same_wherever_they_are_made(dtype):
    rows = (10 * floats(64, 5)).astype(dtype)
    expected = fingerprints(rows).numpy()
    for how in ({}, {"jit_compile": True}):
        np.testing.assert_array_equal(tf.function(fingerprints, **how)(rows), expected)
    np.testing.assert_array_equal(fingerprints(rows[::-1]).numpy()[::-1], expected)
    if dtype != "bool":
        assert len(np.unique(expected)) == len(np.unique(rows, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_fingerprints_of_rows_of_zeros_and_ones_differ(dtype):
    """Few bits of such numbers ever differ."""
    rows = (np.random.default_rng(0).random((20_000, 40)) > 0.5).astype(dtype)
    assert len(np.unique(fingerprints(rows))) == len(np.unique(rows, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_rows_are_located_by_what_a_monitor_saw(dtype):
    """`fit` casts doubles; so does `locate`."""
    x, y, _ = data()
    x = (10 * x).astype(dtype)
    monitor = Monitor(every=1, top_k=ROWS)
    _fit(_model(), {"x": x, "y": y}, callbacks=[monitor], epochs=1)
    found = [
        set(pg.locate(x, [row.id for row in record.rows]).tolist()) for record in monitor.records
    ]
    assert found == [set(batch) for batch in IN_ORDER]


def test_locate():
    x = floats(9, 3)
    x[7] = x[2]
    marks = fingerprints(x).numpy()
    np.testing.assert_array_equal(pg.locate(x, marks), [0, 1, 2, 3, 4, 5, 6, 2, 8])
    np.testing.assert_array_equal(pg.locate(x, [marks[3], 12345]), [3, -1])
    np.testing.assert_array_equal(pg.locate(x, marks, batch_size=2)[[7, 8]], [2, 8])
    dataset = tf.data.Dataset.from_tensor_slices((x, x)).batch(4)
    np.testing.assert_array_equal(pg.locate(dataset, marks[:2]), [0, 1])
    assert len(pg.locate(x, [])) == 0
    np.testing.assert_array_equal(pg.locate(x[:0], marks[:2]), [-1, -1])
    with pytest.raises(pg.DataError, match="one row a sample"):
        pg.locate({"a": x, "b": x[:3]}, marks)
