"""`score_dataset`: what it answers is the definition, in order; and it goes on where it was."""

import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pergrad as pg
from tests.oracle import expect_unchanged
from tests.processes import ROOT

ROWS = 37
ALL = (
    "loss norm squared_norm projection contribution cosine alignment alignment_cosine layer "
    "layer_norms"
).split()


def _model() -> keras.Model:
    """With noise, statistics and a regularizer, none of which scores may depend on or change."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="tanh"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(4, kernel_regularizer="l2"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


def _small() -> keras.Model:
    """What is soon traced."""
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(4))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _data(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 6, 6, 1)), rng.integers(0, 4, rows)


def _scores(model, *data, **options) -> pg.Scores:
    return pg.score_dataset(model, *data, **{"verbose": 0, "batch_size": 8, **options})


def _by_loop(model, x, y, weight=None) -> np.ndarray:
    """`[N, P]`, one sample after the other."""
    options = {"engine": "loop", "of": "own", "training": False}
    found = pg.per_sample_gradients(model, x, y, weight, **options).materialize()
    return np.concatenate([np.reshape(each, [len(x), -1]) for each in found.values()], axis=1)


def _expect_equal(one: pg.Scores, other: pg.Scores) -> None:
    assert list(one.columns) == list(other.columns)
    np.testing.assert_array_equal(one.ids, other.ids)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.usefixtures("float64")
def test_all_scores_are_their_definitions():
    model, (x, y), validation = _model(), _data(), _data(11, seed=1)
    found = _scores(model, x, y, scores=ALL, validation=validation)
    g, g_val = _by_loop(model, x, y), _by_loop(model, *validation).mean(axis=0)
    means = np.concatenate(
        [np.repeat(g[k : k + 8].mean(0)[None], len(g[k : k + 8]), 0) for k in range(0, ROWS, 8)]
    )
    sizes = np.array([8] * 32 + [5] * 5)
    norms, along = np.linalg.norm(g, axis=1), (g * means).sum(axis=1)
    logits = model(x, training=False).numpy()
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(ROWS), y]
    expected = {
        "loss": losses,
        "norm": norms,
        "squared_norm": norms**2,
        "projection": along,
        "contribution": along / (sizes * (means**2).sum(axis=1)),
        "cosine": along / (norms * np.linalg.norm(means, axis=1)),
        "alignment": g @ g_val,
        "alignment_cosine": g @ g_val / (norms * np.linalg.norm(g_val)),
    }
    for name, values in expected.items():  # double precision, sums in another order
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
    ends = np.cumsum([0] + [np.prod(v.shape) for v in model.trainable_variables])
    layers = [v.path.rpartition("/")[0] for v in model.trainable_variables]
    parts = {layer: np.zeros(ROWS) for layer in layers}
    for layer, start, stop in zip(layers, ends[:-1], ends[1:], strict=True):
        parts[layer] += (g[:, start:stop] ** 2).sum(axis=1)
    largest = np.stack(list(parts.values())).argmax(axis=0)
    assert list(found["layer"]) == [list(parts)[k] for k in largest]
    for layer, squares in parts.items():
        np.testing.assert_allclose(found[f"norm/{layer}"], np.sqrt(squares), rtol=1e-9, atol=1e-12)
    assert set(found.columns) == {*expected, "layer", *(f"norm/{layer}" for layer in parts)}


@pytest.mark.usefixtures("float64")
def test_sample_weights_and_engines():
    model, (x, y) = _model(), _data()
    weight = np.linspace(0, 2, ROWS)
    expected = np.linalg.norm(_by_loop(model, x, y, weight), axis=1)
    for engine in ("auto", "loop", "vectorized"):
        found = _scores(model, x, y, weight, engine=engine, scores="norm")
        np.testing.assert_allclose(found["norm"], expected, rtol=1e-9, atol=1e-12)


def test_the_model_is_left_as_it_is():
    model, data = _model(), _data()
    model.fit(*data, verbose=0)
    with expect_unchanged(model):
        _scores(model, *data, scores=ALL, validation=data, training=True)


class _Rows(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.x) // 8)

    def __getitem__(self, k):
        return self.x[8 * k : 8 * k + 8], self.y[8 * k : 8 * k + 8]


def test_all_kinds_of_data_have_the_same_scores():
    model, (x, y) = _small(), _data()
    x = x.astype("float32")  # a tf.data.Dataset hands on what it is given
    expected = _scores(model, x, y)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for data in (batches, pg.with_ids(batches), _Rows(x, y)):
        _expect_equal(_scores(model, data, batch_size=None), expected)
    np.testing.assert_array_equal(expected.ids, np.arange(ROWS))


def test_ids_that_came_with_the_data_are_kept():
    model, (x, y), ids = _small(), _data(), np.arange(ROWS)[::-1] + 1000
    packed = pg.with_ids(x, y, ids=ids)
    for found in (_scores(model, packed), _scores(model, **packed)):
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found["norm"], _scores(model, x, y)["norm"])


def test_dicts_of_inputs_and_no_targets():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((3,), name="b")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))

    class Itself(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.sum(y_pred**2, axis=-1)

    model.compile("sgd", Itself())
    data = {"a": np.ones((9, 2)), "b": np.random.default_rng(0).normal(size=(9, 3))}
    found = _scores(model, data, np.zeros((9, 1)))
    expected = pg.per_sample_gradients(model, data, np.zeros((9, 1)), engine="loop").norms()
    np.testing.assert_allclose(found["norm"], expected, rtol=1e-5)


def test_one_trace_for_full_batches_and_one_for_the_last():
    model, traces = _small(), []

    class Loss(keras.losses.Loss):
        def call(self, y_true, y_pred):
            traces.append(y_pred.shape[0])
            return keras.ops.mean(y_pred**2, axis=-1)

    model.compile("sgd", Loss())
    _scores(model, *_data())
    of_five_batches = len(traces)
    _scores(model, *_data(8 * 12 + 5))
    assert len(traces) - of_five_batches <= of_five_batches


def test_no_rows_at_all():
    found = _scores(_small(), *_data(0), scores=ALL, validation=_data(3))
    assert len(found) == 0 and list(found.columns) == ALL[:-1]  # of no known layers


# --- the table ---


def test_the_top_rows_come_largest_first_and_nan_last():
    scores = pg.Scores(np.array([5, 6, 7, 8]), {"loss": np.array([1.0, np.nan, 3.0, 3.0])})
    assert scores.top(3, by="loss").ids.tolist() == [7, 8, 5]
    assert scores.top(9, by="loss").ids.tolist() == [7, 8, 5, 6]
    assert list(scores.to_dict()) == ["id", "loss"] and len(scores) == 4
    with pytest.raises(pg.PerGradError, match=r"No column.*Did you mean 'loss'.*Received: 'los'"):
        scores.top(1, by="los")


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": "nrom"}, r"Did you mean 'norm'\?.*Received: 'nrom'"),
        ({"scores": ("norm", "algnment")}, r"Did you mean 'alignment'.*Received: 'algnment'"),
        ({"scores": ()}, r"Which scores\?.*Received: scores=\(\)"),
        ({"scores": "alignment"}, r"Give `validation=\(x, y\)`.*Received"),
        ({"batch_size": 0}, r"at least 1. Received: batch_size=0"),
        ({"scores": "alignment", "validation": (1, 2, 3, 4)}, r"Received: 4 parts"),
    ],
)
def test_a_request_that_makes_no_sense(options, message):
    with pytest.raises(pg.PerGradError, match=message):
        _scores(_small(), *_data(), **options)


def _generator():
    yield _data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.shuffle(8).batch(8), r"Received: a ShuffleDataset"),
        (lambda data: data.batch(8).repeat(), r"Received: an endless \w+"),
        (lambda data: _generator(), r"Received: data of type generator"),
    ],
)
def test_data_without_an_order_or_an_end(change, message):
    data = change(tf.data.Dataset.from_tensor_slices(_data()))
    with pytest.raises(pg.DataError, match=message):
        _scores(_small(), data, batch_size=None)


def test_a_dataset_with_settings_of_arrays():
    data = tf.data.Dataset.from_tensor_slices(_data()).batch(8)
    with pytest.raises(pg.DataError, match="beside a _BatchDataset"):
        _scores(_small(), data, batch_size=8)


# --- going on ---


def _interrupted(path, model, *data, after: int, **options) -> None:
    """Scores until `after` batches are finished."""
    x, y = data

    def batches():
        for k in range(0, ROWS, 8):
            if k == 8 * after:
                raise KeyboardInterrupt
            yield x[k : k + 8], y[k : k + 8]

    signature = tuple(tf.TensorSpec([None, *each.shape[1:]], each.dtype) for each in (x, y))
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        stopping = tf.data.Dataset.from_generator(batches, output_signature=signature)
        _scores(model, stopping, batch_size=None, path=path, **options)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_it_goes_on_behind_what_is_finished(tmp_path, after):
    path, model, (x, y) = tmp_path / "scores.npz", _small(), _data()
    x = x.astype("float32")
    options = {"scores": ALL, "validation": _data(11, seed=1)}
    expected = _scores(model, x, y, **options)
    _interrupted(path, model, x, y, after=after, **options)
    with np.load(path) as found:
        assert len(found["ids"]) == 8 * after
    for _ in range(2):  # the second time all is finished
        _expect_equal(_scores(model, x, y, path=path, **options), expected)
    assert [each.name for each in tmp_path.iterdir()] == ["scores.npz"]


def test_a_file_of_something_else_is_refused(tmp_path):
    path, model, (x, y) = tmp_path / "scores.npz", _small(), _data()
    _scores(model, x, y, path=path)
    changed = x.copy()
    changed[20] += 1e-3
    for given, options, message in (
        ((x, y), {"scores": "norm"}, r"differ in scores.*Received: scores=\['norm'\]"),
        ((x, y), {"training": True}, r"differ in training.*Received: training=True"),
        ((x, y), {"batch_size": 9}, r"other rows, or of batches of another size.*Received"),
        ((changed, y), {}, r"other rows.*Received"),
        ((x[:16], y[:16]), {}, r"other rows.*Received"),
    ):
        with pytest.raises(pg.DataError, match=message):
            _scores(model, *given, path=path, **options)
    with_more = np.concatenate([x, x]), np.concatenate([y, y])
    with pytest.raises(pg.DataError, match="other rows"):  # its last batch was not full
        _scores(model, *with_more, path=path)
    model.compile("sgd", lambda y, found: found[:, 0] ** 2)
    with pytest.raises(pg.DataError, match=r"scores the first rows otherwise.*Received: \w+="):
        _scores(model, x, y, path=path)
    model.trainable_variables[0].assign_add(np.ones((36, 4)))
    with pytest.raises(pg.DataError, match=r"the model has other weights.*Received: weights="):
        _scores(model, x, y, path=path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all"])
def test_a_file_that_is_no_scores_is_refused(tmp_path, content):
    path = tmp_path / "scores.npz"
    path.write_bytes(content)
    with pytest.raises(pg.DataError, match=r"holds no scores.*Received: path='.*scores.npz'"):
        _scores(_small(), *_data(), path=path)


_SCRIPT = """
import sys, time
import keras, numpy as np, keras_pergrad as pg
from keras_pergrad.scores import _file

_file.SAVE_SECONDS = _file._SHARE = 0.0
keras.utils.set_random_seed(3)
model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
rng = np.random.default_rng(0)
x, y = rng.normal(size=(6400, 12)), rng.integers(0, 3, 6400)
path, out, pause = sys.argv[1] or None, sys.argv[2], float(sys.argv[3])


class Slow(keras.utils.PyDataset):
    def __len__(self):
        return 200

    def __getitem__(self, k):
        time.sleep(pause)
        return x[32 * k : 32 * k + 32], y[32 * k : 32 * k + 32]


scores = pg.score_dataset(model, Slow(), path=path, verbose=0, scores=("norm", "loss", "cosine"))
np.savez(out, ids=scores.ids, **scores.columns)
"""


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_killed_process_goes_on_and_gives_the_same_bits(tmp_path):
    path, script = tmp_path / "scores.npz", tmp_path / "script.py"
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(path, out, pause) -> subprocess.Popen:
        arguments = [sys.executable, str(script), str(path), str(tmp_path / out), str(pause)]
        return subprocess.Popen(arguments, cwd=tmp_path, env=environment)

    killed, deadline = start(path, "killed.npz", 0.05), time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    with np.load(path) as found:
        assert 0 < len(found["ids"]) < 6400
    assert start(path, "resumed.npz", 0).wait(240) == 0
    assert start("", "whole.npz", 0).wait(240) == 0
    with np.load(tmp_path / "resumed.npz") as resumed, np.load(tmp_path / "whole.npz") as whole:
        assert len(whole["ids"]) == 6400 and sorted(resumed.files) == sorted(whole.files)
        for name in whole.files:
            np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
