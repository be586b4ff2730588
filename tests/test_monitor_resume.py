"""R10: a training that was stopped goes on, with the weights and records of one that was not."""

import json

import keras
import pytest

import keras_pergrad as pg
from tests.monitored import Monitor, expect_records_equal, watched
from tests.resumed import killed_and_restored, stopped_and_loaded, train_on_batches

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")
@pytest.mark.parametrize(
    ("k", "every"),
    [(7, 3), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (3, 2), (10, 1)))],
)
def test_stopped_at_a_step_and_loaded(k, every, tmp_path):
    stopped_and_loaded(k, every, tmp_path)


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("kill", [6, 1, 4, 5, 8, 11])
def test_killed_and_restored_from_a_backup(kill, tmp_path):
    killed_and_restored(kill, tmp_path)


def test_accumulated_gradients_are_counted_as_steps(tmp_path):
    """The optimizer's public count is of updates."""
    path = tmp_path / "records.jsonl"

    def fit(model, callbacks):
        train_on_batches(model, callbacks, 0, 6)
        return train_on_batches(model, [Monitor(every=1, jsonl=path)], 6, 9, epoch=1)

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
