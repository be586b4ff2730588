"""The sentences in a report: contributions, tolerances, remarks, weights without a gradient."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests import planted
from tests.cases import make_case, set_dtype
from tests.problems import by_name, compiled, floats
from tests.samples import each_engine


def _text(report) -> str:
    """The report without the line breaks of its tables."""
    return " ".join(str(report).split())


def _report(name: str, **options) -> pg.EquivalenceReport:
    case = make_case(by_name(name))
    return pg.check_equivalence(case.model, *case.batch, **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sum", "do add up to the batch gradient"),
        ("mask", "do add up to the batch gradient"),
        ("circle", "There are no contributions either"),
    ],
)
def test_a_failed_report_says_whether_contributions_add_up(name, words):
    report = _report(name)
    assert not report.equivalent
    assert words in report.contributions
    assert report.contributions in _text(report)
    assert "Received" not in report.contributions  # the refusal of a call that nobody made


def test_contributions_are_those_of_the_engine_that_is_judged():
    """A fault beyond 1e-4 is refused as no sum over samples; a smaller one is told in numbers."""
    engine = planted.Planted(planted.scaled_everywhere(1 + 2e-3))
    assert "There are no contributions either" in _report("sum", engine=engine).contributions
    engine = planted.Planted(planted.scaled_everywhere(1 + 5e-5))
    told = _report("sum", engine=engine).contributions.split("relative error ")[1]
    # Three digits are printed; float32 keeps an error of 5e-5 to some 1e-7 of the gradient.
    assert float(told.rstrip(").")) == pytest.approx(5e-5, rel=0.02)


def _by_rmse(y, y_pred):
    square = (y - y_pred) ** 2
    return 0 * keras.ops.mean(square, -1) + keras.ops.sqrt(keras.ops.mean(square))


def _by_targets(y, y_pred):
    return keras.ops.mean((y - y_pred) ** 2, -1) / keras.ops.mean(keras.ops.abs(y))


@pytest.mark.parametrize("loss", [_by_rmse, _by_targets, keras.losses.MeanSquaredError("sum")])
def test_what_is_said_of_contributions_is_what_an_engine_does(loss):
    """Also where each derivative of a loss is parallel to that of a sample alone, by accident."""
    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)
    batch = floats(8, 3, seed=1), floats(8, 2, seed=2)
    told = pg.check_equivalence(model, *batch).contributions
    try:
        pg.per_sample_gradients(model, *batch, engine="vectorized")
    except pg.SeparationError:
        assert "There are no contributions either" in told
    else:
        assert "do add up" in told


class _Rows(layers.Layer):
    """Two rows of predictions a sample."""

    def call(self, inputs):
        return keras.ops.reshape(inputs, (-1, 2))

    def compute_output_shape(self, shape):
        return None, 2


class _OfRows(keras.losses.Loss):
    def call(self, y, y_pred):
        return keras.ops.mean((keras.ops.reshape(y, (-1, 2)) - y_pred) ** 2, -1)


def test_a_loss_that_no_instrument_understands_has_a_report():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), _Rows()])
    report = pg.check_equivalence(
        compiled(model, _OfRows(reduction="sum")), floats(8, 3, seed=1), floats(8, 4, seed=2)
    )
    assert not report.equivalent and report.causes and report.contributions


def test_an_equivalent_report_says_nothing_of_contributions():
    assert _report("mse").contributions is None


@pytest.mark.parametrize(
    ("dtype", "times"), [("float64", "4.55e+05"), ("float32", "83.3")], ids=["float64", "float32"]
)
def test_a_tolerance_says_why_it_is_that_number(dtype, times):
    set_dtype(dtype)
    report = _report("mse")
    reason = report.tolerance.because
    assert f"{dtype}: {times} times its spacing" in reason
    assert f"because {reason}." in _text(report)


def test_the_coarsest_dtype_of_a_mixed_model_gives_the_tolerance():
    half = layers.Dense(4, dtype="bfloat16")
    model = compiled(keras.Sequential([keras.Input((3,)), half, layers.Dense(2)]))
    report = pg.check_equivalence(model, floats(4, 3, seed=1), floats(4, 2, seed=2))
    assert report.tolerance.dtype == "bfloat16" and "is bfloat16: " in report.tolerance.because
    report = _report("mse", rtol=0.25)
    assert report.tolerance.rtol == 0.25 and "tolerance 0.25 because it was asked" in _text(report)


class IgnoresSamples(keras.Sequential):
    """Its loss depends on the weights alone."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(self.layers[0].kernel))


@each_engine
def test_a_loss_that_ignores_the_samples_is_remarked_upon(engine):
    model = compiled(IgnoresSamples([keras.Input((3,)), layers.Dense(2)]), None)
    report = pg.check_equivalence(model, floats(4, 3, seed=1), engine=engine)
    remark = "The loss does not depend on the samples: all gradients are the same."
    assert report.remarks == [remark] and remark in _text(report)
    assert _report("mse", engine=engine).remarks == []


class InfiniteSlope(layers.Layer):
    """The square root: at zero a number, with a slope that is none."""

    def call(self, inputs):
        return ops.sqrt(ops.relu(inputs) * 0.0 * inputs[:, :1])


def test_the_first_weight_with_nan_is_named():
    """The gradient of the layers behind the root is finite; the first one's is not."""
    start = keras.Input((3,))
    rooted = InfiniteSlope()(layers.Dense(4, name="before")(start))
    last = layers.Dense(2, name="last")(layers.Concatenate()([start, rooted]))
    model = compiled(keras.Model(start, last))
    report = pg.check_equivalence(model, floats(4, 3, seed=1), floats(4, 2, seed=2))
    [remark, others] = report.remarks
    assert others == "Beside 'non_finite' no other cause can be told: mend it first."
    assert remark.endswith("in its sample gradients is 'before/kernel'.")
    assert remark in _text(report)
    [cause] = report.causes
    assert cause.kind == "non_finite" and cause.where == "before/bias"
    assert report.non_finite == 4 and report.non_finite_indices == [0, 1, 2, 3]
    finite = [row.path for row in report.rows if np.isfinite(row.batch_norm)]
    assert finite == ["last/kernel", "last/bias"]


CUTS = {
    "argmax": lambda values: ops.cast(ops.argmax(values, axis=-1), values.dtype)[:, None],
    "integer_cast": lambda values: ops.cast(ops.cast(10 * values, "int32"), values.dtype),
}


def _with_a_cut(cut) -> keras.Model:
    start = keras.Input((3,))
    before = layers.Lambda(cut)(layers.Dense(4, name="before")(start))
    return compiled(keras.Model(start, layers.Dense(2)(layers.Concatenate()([before, start]))))


@each_engine
@pytest.mark.parametrize("cut", CUTS)
def test_weights_behind_an_argmax_or_an_integer_are_named_with_the_reason(cut, engine):
    model, batch = _with_a_cut(CUTS[cut]), (floats(4, 3, seed=1), floats(4, 2, seed=2))
    g = pg.per_sample_gradients(model, *batch, engine=engine, of="own")
    rows = g.materialize()
    assert set(g.unconnected) == {"before/kernel", "before/bias"}
    assert all("integer, argmax" in reason for reason in g.unconnected.values())
    assert not any(np.any(rows[path]) for path in g.unconnected)


def test_an_unread_weight_has_another_reason_and_both_are_in_the_report():
    start = keras.Input((3,))
    cut = _with_a_cut(CUTS["argmax"])
    unread = layers.Dense(1, name="unread")
    unread.build((None, 3))
    model = keras.Model(start, cut(start))
    model.unread = unread
    report = pg.check_equivalence(compiled(model), floats(4, 3, seed=1), floats(4, 2, seed=2))
    assert report.equivalent
    assert "nothing calls its layer 'unread'" in report.unconnected["unread/kernel"]
    assert "whole numbers are made of it" in report.unconnected["before/kernel"]
    for path, reason in report.unconnected.items():
        assert f"No gradient reaches '{path}': {reason}." in _text(report)
