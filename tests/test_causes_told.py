"""What a report tells beside the cause: code that separates, what the trace sees, in few words."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from keras_pergrad._text import render
from tests.broken import BROKEN
from tests.broken.base import Mixes, chain, dense, images, mixing, numbers, segmenting, summed
from tests.cases import nudge
from tests.problems import compiled, floats


def checked(build, batch):
    model = build()
    nudge(model)
    return pg.check_equivalence(model, *batch())


# --- a loss that separates, as code ---

SEPARATING = {
    "Dice": "Dice(axis=(1, 2, 3))",
    "Tversky": "Tversky(axis=(1, 2, 3))",
    "sum": "MeanSquaredError(reduction='sum_over_batch_size')",
    "no reduction": "MeanSquaredError(reduction='sum_over_batch_size')",
    "weights cancel": "MeanSquaredError(reduction='sum_over_batch_size')",
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", SEPARATING)
def test_what_separates_is_told_as_code_and_does(name):
    broken, code = BROKEN[name], SEPARATING[name]
    model = broken.build()
    nudge(model)
    [cause] = pg.check_equivalence(model, *broken.batch()).causes
    assert f"`{code}`" in cause.remedy
    model.compile("sgd", eval(code, vars(keras.losses)))
    pg.assert_equivalent(model, *broken.batch())


def test_what_else_the_loss_was_given_is_kept():
    loss = lambda: keras.losses.Tversky(alpha=0.3, beta=0.7, reduction="sum")  # noqa: E731
    [cause] = checked(segmenting(loss), images(2)).causes
    code = "Tversky(reduction='sum_over_batch_size', axis=(1, 2, 3), alpha=0.3, beta=0.7)"
    arguments = code[len("Tversky(") : -1].split(", ")
    assert all(each in cause.remedy for each in arguments), cause.remedy


def test_the_loss_is_left_as_it_was():
    model = BROKEN["Dice"].build()
    before = dict(vars(model.loss))
    pg.check_equivalence(model, *BROKEN["Dice"].batch())
    assert vars(model.loss) == before


def test_no_reduction_is_told_where_none_separates():
    """With a mask, Keras' mean divides by the whole batch's, too."""
    broken = BROKEN["mask"]
    build = chain((4, 3), layers.Masking, dense(), loss=summed)
    [cause] = checked(build, broken.batch).causes
    assert "MeanSquaredError(" not in cause.remedy and "sum_over_batch_size" not in cause.remedy


class Squares(keras.losses.Loss):
    """Cannot be made again from its configuration."""

    def __init__(self, power, reduction="sum"):
        super().__init__(reduction=reduction)
        self.power = power

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** self.power, axis=-1)


def test_a_loss_class_of_ones_own_is_tried_too():
    [cause] = checked(chain((5,), dense(), loss=lambda: Squares(2.0)), numbers(5)).causes
    assert "`Squares(reduction='sum_over_batch_size')`" in cause.remedy


# --- the trace and the behaviour ---


def nothing_of_the_mean(x):
    return x + 0.0 * ops.mean(x, axis=0, keepdims=True)


def test_what_only_the_trace_sees_is_a_remark():
    build = chain((5,), dense(4), lambda: Mixes(nothing_of_the_mean, name="mixer"), dense())
    model = build()
    found = pg.explain(model, *numbers(5)())
    assert found.report.equivalent
    [remark] = [each for each in found.report.remarks if "trace" in each]
    assert remark.endswith("of 'mixer', and no change of other samples moved its output.")


def test_it_is_told_beside_a_cause():
    build = chain(
        (5,), dense(4), lambda: Mixes(nothing_of_the_mean, name="mixer"), dense(), loss=summed
    )
    report = checked(build, numbers(5))
    assert [cause.kind for cause in report.causes] == ["loss_normalization"]
    assert [each for each in report.remarks if "trace" in each and "'mixer'" in each]


QUIET = {
    "a draw that is one for all": lambda x: x + keras.random.normal((1, 4)),
    "noise": lambda x: x + keras.random.normal(ops.shape(x)),
    "the mean of the entries": lambda x: x - ops.mean(x, axis=1, keepdims=True),
    "an operation that the trace does not know": lambda x: (
        x + ops.reshape(tf.image.rgb_to_hsv(ops.abs(x)[:, None, :3])[:, :, :1], (-1, 1))
    ),
    "the size": lambda x: x / ops.cast(ops.shape(x)[0], x.dtype),
    "what behaviour shows, too": lambda x: x - ops.mean(x, axis=0, keepdims=True),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", QUIET)
def test_nothing_is_said_where_the_two_agree(name):
    model = mixing(QUIET[name])()
    report = pg.explain(model, *numbers(5)()).report
    assert [each for each in report.remarks if "trace" in each] == []


def test_an_operation_is_named_within_its_layer():
    """It was named by a scope that the graph had numbered anew."""
    report = checked(BROKEN["batch normalization in a nested model"].build, numbers(5))
    [cause] = report.causes
    assert "'moments/" in cause.because
    assert "sequential" not in cause.because


# --- in few words ---


def test_what_was_ruled_out_are_kinds_each_once():
    broken = BROKEN["a gradient of its own"]
    report = checked(broken.build, broken.batch)
    [cause] = report.causes
    listed = cause.because.partition("not found: ")[2].rstrip(".").split(", ")
    assert len(listed) == len(set(listed))
    assert {"sample_interaction", "loss_normalization", "broadcast", "precision"} <= set(listed)
    assert not {"loss_interaction", "uneven_parts", "broadcast_in_model"} & set(listed)


def test_a_sample_that_is_masked_as_a_whole_has_a_dash_for_a_weight():
    x, y, _ = BROKEN["mask"].batch()
    x[::2] = 0  # six of twelve: among seven that are looked into there is one
    report = checked(BROKEN["mask"].build, lambda: (x, y, None))
    [cause] = report.causes
    assert any(np.isnan(cause.numbers["weight"]))
    shown = render(*cause.lines())
    assert "nan" not in shown and "–" in shown


def test_noise_is_drawn_once():
    build = chain((5,), lambda: layers.Dropout(0.5), dense())
    [note] = [n for n in pg.explain(build(), *numbers(5)()).report.notes if n.kind == "randomness"]
    assert "It draws noise, once in a step" in note.because


def test_a_weight_without_a_gradient_is_told_once():
    class Aside(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.left = layers.Dense(2), layers.Dense(3, name="left")

        def call(self, inputs):
            self.left(inputs)
            return self.used(inputs)

    model = Aside()
    model(floats(1, 5))
    report = pg.explain(compiled(model), *numbers(5)()).report
    assert str(report).count("No gradient reaches") == 2  # the kernel and the bias


def test_contributions_are_refused_without_naming_what_is_not_there():
    report = checked(mixing(QUIET["what behaviour shows, too"]), numbers(5))
    assert "There are no contributions" in report.contributions
    assert "BatchNormalization" not in str(report) and "Dice" not in str(report)
