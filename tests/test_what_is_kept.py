"""Of a step that failed, what is kept under XLA and on replicas, and what the host makes of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from keras_pergrad.models._stash import ROWS, Stash, stash_for
from keras_pergrad.runs import Batch
from tests import planted
from tests.problems import floats
from tests.processes import run_code
from tests.test_kinks import _in_float32_alone
from tests.test_replicas import COMMON
from tests.twins import dense, trained

XLA = {"jit_compile": True}


def _failed(model, loss, x, y, **settings):
    """The report of one step under XLA that fails."""
    check = pg.PerSample("factored", on_failure="record", **settings)
    model.compile("sgd", loss, per_sample=check, **XLA)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    report = model.equivalence_report
    assert not report.equivalent
    return report


# --- room of one size ---


@pytest.mark.parametrize("size", [1, 3, 5, 6, 40])
def test_rows_of_one_shape_are_those_of_their_places(size):
    batch = Batch(tf.range(size), {"twice": 2.0 * tf.range(size, dtype=tf.float32)[:, None]})
    stash = Stash(batch, rows=5)

    @tf.function(jit_compile=True)
    def keep(when):
        stash.keep(batch, when, turn=7)

    keep(tf.constant(False))
    assert stash.take() is None
    keep(tf.constant(True))
    kept = stash.take()
    assert stash.take() is None
    assert kept.size == size and kept.is_whole is (size <= 5)
    assert len(set(kept.places)) == min(size, 5) and kept.places == sorted(kept.places)
    np.testing.assert_array_equal(kept.batch.x, kept.places)
    np.testing.assert_array_equal(kept.batch.y["twice"][:, 0], 2.0 * np.array(kept.places))


def test_there_is_room_for_as_much_as_the_budget_allows_and_known_shapes():
    found = {}

    def look(x, name, budget):
        stash = stash_for(Batch(x), budget)
        found[name] = stash and stash._rows

    @tf.function(jit_compile=True)
    def compiled(x):
        look(x, "all", 2**30)
        look(x, "few", 12 * 10)  # ten rows of three float32
        look(x, "none", 12)
        return x

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None, None])])
    def of_any_rows(x):
        look(x, "unknown", 2**30)
        return x

    compiled(tf.zeros([4, 3]))
    of_any_rows(tf.zeros([4, 3]))
    tf.function(lambda x: look(x, "any", 12))(tf.zeros([4, 3]))
    # Without XLA: any number, None.
    assert found["all"] == ROWS and found["few"] == 10
    assert found["none"] is None and found["unknown"] is None
    assert stash_for(Batch(tf.ragged.constant([[1.0], [1.0, 2.0]])), 2**30) is None
    assert stash_for(Batch(tf.zeros([4, 3])), 12)._rows is None


# --- under XLA, which takes long to compile a check ---


@pytest.mark.slow
def test_xla_code_of_ones_own_that_mixes_samples_is_named():
    class Centre(layers.Layer):
        def call(self, inputs):
            return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)

    stack = [keras.Input((3,)), layers.Dense(4), Centre(name="centre"), layers.Dense(2)]
    model = pg.PerGradSequential(stack)
    report = _failed(model, "mse", floats(12, 3, seed=1), floats(12, 2, seed=2))
    assert [cause.kind for cause in report.causes] == ["sample_interaction"]
    assert "centre" in report.causes[0].where
    assert report.causes[0].explains == pytest.approx(1, abs=1e-3)
    assert "were kept" not in " ".join(report.remarks)


def test_xla_of_a_large_batch_some_rows_are_kept_and_their_places_are_right():
    """The own denominator of a sample is its length, which is known by its place."""
    size = ROWS + 37
    lengths = 1 + np.arange(size) * 7 % 5
    x, y = floats(size, 5, 3, seed=1), floats(size, 5, 2, seed=2)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0
    stack = [keras.Input((5, 3)), layers.Masking(), layers.Dense(2)]
    report = _failed(pg.PerGradSequential(stack), "mse", x, y)
    assert report.num_samples == size
    assert f"Of the {size} samples {ROWS}, chosen by chance" in " ".join(report.remarks)
    (cause,) = report.causes
    assert cause.kind == "loss_normalization" and max(cause.samples) < size
    np.testing.assert_allclose(cause.numbers["own denominator"], lengths[cause.samples])
    assert report.tie_breaker is None or "not here" in report.tie_breaker


@pytest.mark.slow
def test_xla_what_float32_alone_gets_wrong_is_acquitted_where_it_is_small():
    small = _in_float32_alone(planted.scaled_everywhere(1 + 1e-4))
    plain, _ = trained(dense, None, **XLA)
    watched, _ = trained(dense, pg.PerSample(small), **XLA)
    report = watched.equivalence_report
    assert report.equivalent and report.mean.error > report.tolerance.rtol
    assert "not equivalent" not in report.tie_breaker
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(pg.EquivalenceError) as caught:
        trained(dense, pg.PerSample(_in_float32_alone(planted.scaled_everywhere(1.1))), **XLA)
    assert "under XLA" in caught.value.report.tie_breaker


# --- on replicas ---

REPLICAS = """
from tests import planted
from tests.test_kinks import _in_float32_alone
keras.config.set_floatx("float32")
x, y = x.astype("float32")[:12], y.astype("float32")[:12]

class Centre(layers.Layer):
    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)

def report_of(inner, loss, engine="factored", **options):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        stack = [keras.Input((3,)), layers.Dense(4), *inner, layers.Dense(2)]
        model = pg.PerGradSequential(stack)
        settings = pg.PerSample(engine, on_failure="record", **options)
        model.compile(keras.optimizers.SGD(0.1), loss, per_sample=settings)
    model.fit(x, y, batch_size=12, shuffle=False, verbose=0)
    return model, model.equivalence_report

_, report = report_of([Centre(name="centre")], "mse")
assert [cause.kind for cause in report.causes] == ["sample_interaction"], str(report)
assert "centre" in report.causes[0].where and report.explained_on <= 6 == report.num_samples

# The second replica alone has what is wrong: its rows, counted from its first one.
x[8] = np.nan
_, report = report_of([], "mse")
assert any("replica 1" in remark for remark in report.remarks), str(report)
assert [cause.kind for cause in report.causes] == ["non_finite"], str(report)
assert report.causes[0].where == "the batch" and "sample 2" in report.causes[0].because
x[8] = 0

model, report = report_of([], "mse", _in_float32_alone(planted.one_sample_dropped))
assert report.equivalent and report.mean.error > report.tolerance.rtol, str(report)
plain, _ = report_of([], "mse", check="off")
for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
    np.testing.assert_array_equal(a, b)
"""


@pytest.mark.slow
@pytest.mark.subprocess
def test_on_replicas_the_batch_of_the_one_that_failed_is_looked_into():
    result = run_code(COMMON + REPLICAS)
    assert result.returncode == 0, result.stderr[-3000:]
