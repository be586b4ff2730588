"""Why a check failed: every planted cause at its place, how much it explains, and its repair."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from keras_pergrad._text import render
from keras_pergrad.equivalence._cause import Cause
from tests import oracle, planted
from tests.broken import BROKEN
from tests.broken.base import OwnLoss, numbers
from tests.cases import make_case, nudge
from tests.figures.causes import clean_problems, wrongly_named
from tests.problems import by_name, compiled, floats
from tests.processes import run_code

IN_DEFAULT = 3  # every third; all of them are the scoreboard's R5


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", [*BROKEN][::IN_DEFAULT])
def test_every_planted_cause_is_named_at_its_place(name):
    from collections import Counter

    assert wrongly_named(BROKEN[name], Counter()) == ""


def test_clean_models_are_half_of_the_suite():
    assert len(clean_problems()) + len(BROKEN) >= 60
    assert len(BROKEN) >= 30 and len(clean_problems()) >= 30


def report_on(name):
    broken = BROKEN[name]
    model = broken.build()
    nudge(model)
    with oracle.expect_unchanged(model):
        return pg.check_equivalence(model, *broken.batch(), engine=broken.engine)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "name",
    [
        "batch normalization and a sum",
        "batch normalization and centring",
        "mask and a vector given to add_loss",
        "batch normalization and Dice",
        "Dice and Tversky, each of an output",
        "losses in another order than the outputs",
        "one Dice of two outputs",
    ],
)
def test_the_parts_of_several_causes_add_up(name):
    report = report_on(name)
    parts = [cause.explains for cause in report.causes]
    # Projections of the parts of one vector on it: they and what remains add up to 1.
    assert sum(parts) == pytest.approx(1.0, abs=1e-3)
    assert report.remainder == pytest.approx(0.0, abs=1e-3)
    assert len(parts) == 2


def test_the_weights_of_masked_samples_are_their_share_of_the_mask():
    [cause] = report_on("mask").causes
    own = np.array(cause.numbers["own denominator"])
    np.testing.assert_allclose(cause.numbers["weight"], own / own.mean(), rtol=1e-5)


def test_an_engine_at_fault_is_no_fault_of_the_model():
    case, engine = make_case(by_name("mse")), planted.Planted(planted.scaled_everywhere(1.5))
    [cause] = pg.check_equivalence(case.model, *case.batch, engine=engine).causes
    assert cause.kind == "unexplained" and "engine=" in cause.where
    assert "sample_interaction" in cause.because  # what was ruled out


def test_a_tolerance_below_the_dtype_is_precision():
    case = make_case(by_name("mse"))
    report = pg.check_equivalence(case.model, *case.batch, rtol=1e-12)
    assert [cause.kind for cause in report.causes] == ["precision"]


def test_stateful_recurrent_layers_are_state():
    case = make_case(by_name("lstm_stateful"))
    report = pg.check_equivalence(case.model, *case.batch, engine="jacobian")
    assert report.equivalent
    found = pg.explain(case.model, *case.batch)
    assert "keeps one state" in found.definitions[0].refusal


# --- `replace_batch_norm` ---


def test_replace_batch_norm_is_a_remedy():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.BatchNormalization()])
    start = keras.Input((6,))
    model = keras.Model(start, layers.Dense(2)(layers.BatchNormalization()(inner(start))))
    compiled(model)
    nudge(model)
    x, y = floats(8, 6, seed=1), floats(8, 2, seed=2)
    copy = pg.replace_batch_norm(model)
    assert not pg.check_equivalence(model, x, y).equivalent
    pg.assert_equivalent(copy, x, y)
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    for old, new in zip(model.trainable_variables, copy.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_replace_batch_norm_refuses_what_it_cannot_exchange():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.normalization = layers.BatchNormalization()

        def call(self, inputs):
            return self.normalization(inputs)

    model = Own()
    model(floats(2, 3))
    with pytest.raises(pg.UnsupportedError, match="Received: model='own'"):
        pg.replace_batch_norm(model)


# --- the whole story, and the file ---


def test_explain_tells_of_a_model_that_is_fine(capsys):
    start = keras.Input((5,))
    hidden = layers.Dropout(0.5, name="noisy")(layers.Dense(4, kernel_regularizer="l2")(start))
    model = compiled(keras.Model(start, layers.Dense(2)(hidden)))
    with oracle.expect_unchanged(model):
        found = pg.explain(model, *numbers(5)())
    assert str(found) in capsys.readouterr().out
    assert found.report.equivalent and found.report.causes == []
    assert {note.kind for note in found.report.notes} == {"batch_term", "randomness"}
    for definition in found.definitions:
        assert definition.refusal is None
        assert definition.from_isolated < 1e-5 and definition.from_batch < 1e-5
    np.testing.assert_allclose(found.weights["mse"], 1.0, rtol=1e-4)


def test_explain_tells_the_definitions_apart_under_batch_normalization():
    broken = BROKEN["batch normalization"]
    model = broken.build()
    nudge(model)
    found = pg.explain(model, *broken.batch())
    isolated, row, share = found.definitions
    assert isolated.from_batch > 0.1
    assert row.from_batch < 1e-5 and row.from_isolated > 0.1
    assert share.from_batch < 1e-5 and share.from_isolated > 0.1


def test_explain_notes_a_train_step_of_the_models_own():
    class Stepped(OwnLoss):
        def train_step(self, data):
            return super().train_step(data)

    model = Stepped(lambda y, p: ops.mean((y - p) ** 2))
    model(floats(1, 5))
    model.compile("sgd")
    found = pg.explain(model, *numbers(5)())
    assert [note.kind for note in found.report.notes] == ["own_train_step"]


def test_explain_notes_weights_without_a_gradient():
    start = keras.Input((5,))
    frozen = layers.Dense(4, trainable=False, name="frozen")
    model = compiled(keras.Model(start, layers.Dense(2)(frozen(start))))
    found = pg.explain(model, *numbers(5)())
    [note] = found.report.notes
    assert note.kind == "unconnected" and note.where == "frozen/kernel"


# Keras writes files through numpy's old `__array__` protocol.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_report_reproduces_itself(tmp_path):
    broken = BROKEN["sum"]
    model = broken.build()
    report = pg.check_equivalence(model, *broken.batch())
    report.save(tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as file:
        file.extractall(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["causes"][0]["kind"] == "loss_normalization"
    command = [sys.executable, "reproduce.py"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "loss_normalization in 'mean_squared_error'" in printed.stdout


def test_a_report_that_passed_has_nothing_to_save(tmp_path):
    case = make_case(by_name("mse"))
    report = pg.check_equivalence(case.model, *case.batch)
    with pytest.raises(pg.PerGradError, match="Received: path="):
        report.save(tmp_path / "report.zip")


def test_fit_names_causes_once_and_says_when():
    model = pg.PerGradSequential(
        [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    )
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="always", on_failure="record"))
    x, y, _ = numbers(5)()
    model.fit(x, y, batch_size=6, epochs=2, verbose=0)
    report = model.equivalence_report
    assert [cause.kind for cause in report.causes] == ["sample_interaction"]
    assert report.causes[0].explains == pytest.approx(1.0, abs=1e-3)
    assert "The causes were looked for at training step 0." in report.remarks


def test_gradients_that_underflow_are_noted_though_their_means_agree():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dense(2)])
    model.compile("sgd", "mse", loss_weights=1e-7, auto_scale_loss=False)
    x, y, _ = numbers(5)()
    report = pg.check_equivalence(model, x, y)
    assert report.equivalent and report.causes == []
    assert [(note.kind, note.where) for note in report.notes] == [("precision", "float16")]
    model.compile("sgd", "mse", auto_scale_loss=False)
    assert pg.check_equivalence(model, x, y).notes == []


def test_rows_that_are_alike_beside_each_other_hide_nothing():
    """A part of the batch is looked at, chosen by chance: its first rows may all be one."""
    broken = BROKEN["batch normalization"]
    model = broken.build()
    nudge(model)
    x, y, _ = (None if each is None else np.repeat(each, 50, axis=0) for each in broken.batch())
    [cause] = pg.check_equivalence(model, x, y).causes
    assert cause.kind == "sample_interaction"


def test_a_model_without_weights_is_built_from_the_batch():
    model = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y, _ = numbers(5)()
    report = pg.check_equivalence(model, x, y)
    assert [cause.kind for cause in report.causes] == ["sample_interaction"]
    assert model.input_shape == (None, 5)


def test_causes_of_several_losses_under_xla():
    broken = BROKEN["one of two outputs is summed"]
    model = broken.build()
    model.compile("sgd", model.loss, jit_compile=True)
    nudge(model)
    [cause] = pg.check_equivalence(model, *broken.batch()).causes
    assert cause.where.startswith("right")


def test_a_batch_of_a_dataset():
    import tensorflow as tf

    broken = BROKEN["mask"]
    model = broken.build()
    nudge(model)
    x, y, _ = broken.batch()
    batch = next(iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(8)))
    assert [cause.kind for cause in pg.check_equivalence(model, *batch).causes] == [
        "loss_normalization"
    ]


REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import keras_pergrad as pg

class Own(keras.Model):
    def __init__(self, divided):
        super().__init__()
        self.dense, self.divided = keras.layers.Dense(2), divided

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = keras.ops.mean((y - y_pred) ** 2)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return loss / replicas if self.divided else loss

x, y = np.random.rand(2, 8, 2).astype("float32")
for divided in (False, True):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = Own(divided)
        model(x)
        model.compile("sgd")
    report = pg.check_equivalence(model, x, y)
    if report.equivalent:
        report = pg.explain(model, x, y).report
    scales = [note for note in report.notes if note.kind == "loss_scale"]
    assert len(scales) == (0 if divided else 1), str(report)
    assert not any("failed" in remark for remark in report.remarks), str(report)
"""


@pytest.mark.subprocess
def test_a_loss_that_forgets_the_replicas_is_noted():
    result = run_code(REPLICAS)
    assert result.returncode == 0, result.stdout + result.stderr


def pairs(size):
    return floats(size, 4), floats(size, 2, seed=2)


def linear():
    return keras.Sequential([layers.Input((4,)), layers.Dense(2)])


def squares_over_targets(y, y_pred):
    return ops.sum((y - y_pred) ** 2) / (1 + ops.sum(ops.abs(y)))


def test_a_loss_function_of_one_number_is_undone_whole():
    """It was undone as one that Keras reduces: parts of 209 % and -109 %, and a false cause."""
    report = pg.check_equivalence(compiled(linear(), loss=squares_over_targets), *pairs(12))
    assert [cause.kind for cause in report.causes] == ["loss_normalization"]
    assert report.causes[0].explains == pytest.approx(1.0, abs=1e-3)


def test_a_root_of_a_mean_ties_samples():
    """Its derivative is the sample's own times a number, which no weight is all the same."""

    def root(y, y_pred):
        return ops.sqrt(ops.mean((y - y_pred) ** 2))

    report = pg.check_equivalence(compiled(linear(), loss=root), *pairs(12))
    assert [(cause.kind, cause.where) for cause in report.causes] == [
        ("sample_interaction", "root")
    ]


def test_a_loss_function_that_sums_is_a_scale():
    def summed(y, y_pred):
        return ops.sum((y - y_pred) ** 2)

    report = pg.check_equivalence(compiled(linear(), loss=summed), *pairs(12))
    assert [cause.kind for cause in report.causes] == ["loss_scale"]


def test_a_row_among_hundreds_is_found():
    x, y = pairs(300)
    weights = np.ones(300, "float32")
    weights[211] = 50
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    report = pg.check_equivalence(compiled(linear(), loss), x, y, weights, engine="factored")
    assert [cause.kind for cause in report.causes] == ["loss_normalization"]
    assert 211 in report.causes[0].samples


class Stepping(keras.Sequential):
    def train_step(self, data):
        raise AssertionError("no check runs it")


def test_a_train_step_of_the_models_own_is_noted_although_the_check_passes():
    model = compiled(Stepping([layers.Input((4,)), layers.Dense(2)]))
    report = pg.check_equivalence(model, *pairs(12))
    assert report.equivalent
    assert [note.kind for note in report.notes] == ["own_train_step"]


def test_a_model_without_a_loss_is_told_where_it_goes():
    model = Stepping([layers.Input((4,)), layers.Dense(2)])
    model.compile("sgd")
    with pytest.raises(pg.PerGradError, match=r"compute_loss.*own_train_step.*Received: loss=None"):
        pg.check_equivalence(model, *pairs(12))


def test_brackets_are_shown_as_they_are():
    cause = Cause("state", "a[0]", "Of shape [batch, ...] [/b] :x:.", "None.")
    (line,) = cause.lines()
    assert "[batch, ...] [/b] :x:" in render(line)


def test_numbers_are_those_of_the_batch():
    """They were shown under the places among the samples looked into."""
    x, y = pairs(64)
    weights = np.arange(1, 65, dtype="float32")
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    report = pg.check_equivalence(compiled(linear(), loss), x, y, weights, engine="factored")
    [cause] = report.causes
    assert 0 < len(cause.samples) < 64
    own = weights[cause.samples]
    np.testing.assert_allclose(cause.numbers["weight"], own / own.mean(), rtol=1e-4)


def test_a_factor_is_that_of_the_batch():
    def summed(y, y_pred):
        return ops.sum((y - y_pred) ** 2)

    model = compiled(linear(), loss=summed)
    [cause] = pg.check_equivalence(model, *pairs(64), engine="factored").causes
    assert "64 times" in cause.because


def test_what_add_loss_is_given_is_told_of_the_whole_batch():
    """It was told of the samples looked into: 11 of these 12."""
    broken = BROKEN["vector given to add_loss"]
    [cause] = pg.check_equivalence(broken.build(), *broken.batch()).causes
    assert "(shape (12,))" in cause.because and "counts 12 times" in cause.because


def test_explain_says_which_definitions_agree():
    story = " ".join(str(pg.explain(compiled(linear()), *pairs(12))).split())
    assert "Alike: isolated, jacobian row, share." in story
    assert "The mean is the batch gradient for: isolated, jacobian row, share." in story


def test_under_xla_fit_names_causes():
    model = pg.PerGradSequential([layers.Input((4,)), layers.Dense(2)])
    loss = keras.losses.MeanSquaredError(reduction="sum")
    model.compile("sgd", loss, jit_compile=True, per_sample=True)
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(*pairs(12), batch_size=12, verbose=0)
    assert [cause.kind for cause in caught.value.report.causes] == ["loss_normalization"]


def test_where_no_rows_are_kept_fit_says_where_causes_are_named():
    """Under XLA, of rows of unknown shape."""
    model = pg.PerGradSequential([layers.Input((None, 4)), layers.Dense(2)])
    loss = keras.losses.MeanSquaredError(reduction="sum")
    model.compile("sgd", loss, jit_compile=True, per_sample=pg.PerSample("loop"))
    signature = tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None, 2))
    x, y = (part[:, None] for part in pairs(12))
    data = tf.data.Dataset.from_generator(lambda: iter([(x, y)]), output_signature=signature)
    with pytest.raises(pg.EquivalenceError, match=r"such\sa\sbatch\snames\sthem") as caught:
        model.fit(data, shuffle=False, verbose=0)
    assert not caught.value.report.causes


def test_a_model_that_is_not_built_has_no_normalization_to_replace():
    with pytest.raises(pg.PerGradError, match="not built"):
        pg.replace_batch_norm(keras.Sequential([layers.BatchNormalization()]))


class Unsaved(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units.value)

    def call(self, inputs):
        return self.dense(inputs)


def test_what_cannot_be_saved_leaves_no_file(tmp_path):
    class Units:
        value = 2

    loss = keras.losses.MeanSquaredError(reduction="sum")
    report = pg.check_equivalence(compiled(Unsaved(Units()), loss), *pairs(12))
    with pytest.raises(pg.PerGradError, match="cannot save"):
        report.save(tmp_path / "case.zip")
    assert not (tmp_path / "case.zip").exists()


class Block(keras.Layer):
    """As blocks are often written: `call` knows nothing of `training`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4)
        self.bn = layers.BatchNormalization(name="inner")

    def build(self, shape):
        self.dense.build(shape)
        self.bn.build((None, 4))

    def call(self, inputs):
        return self.bn(self.dense(inputs))


def test_a_block_that_knows_nothing_of_training_is_looked_into():
    """It was called by itself in inference, and the whole model was blamed."""
    blocks = [Block(name="one"), Block(name="two")]
    model = compiled(keras.Sequential([layers.Input((4,)), *blocks, layers.Dense(2)]))
    causes = pg.check_equivalence(model, *pairs(12), engine="factored").causes
    assert [cause.where.split("/")[-2:] for cause in causes] == [["one", "inner"], ["two", "inner"]]
    assert all("GroupNormalization" in cause.remedy for cause in causes)


def test_a_loss_function_that_looks_at_the_place_is_the_one_cause():
    def by_place(y, y_pred):
        place = ops.cast(ops.arange(ops.shape(y_pred)[0]), y_pred.dtype)
        return ops.mean((y - y_pred) ** 2, axis=-1) * (1 + place)

    model = compiled(linear(), loss=by_place)
    [cause] = pg.check_equivalence(model, *pairs(12), engine="factored").causes
    assert (cause.kind, cause.where) == ("loss_normalization", "by_place")
    assert cause.explains == pytest.approx(1.0, abs=1e-3)
