"""A trainable weight that no gradient reaches is told its reason, each in a planted model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.cases import nudge
from tests.problems import compiled, floats

X, Y = floats(12, 5, seed=1), floats(12, 2, seed=2)


class Planted(keras.Layer):
    """Adds what `function(layer, inputs)` makes of a weight, which may be nothing."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def build(self, shape):
        self.weight = self.add_weight(shape=(4,), initializer="ones", name="weight")

    def call(self, inputs):
        return inputs + self.function(self, inputs)


class Branching(Planted):
    """Its own code reads the weight, in a branch of Python that is not taken."""

    warm = False

    def call(self, inputs):
        return inputs * self.weight if self.warm else inputs


class Routed(keras.Layer):
    """Calls one of its two layers: what the code names is not always what it comes to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.taken, self.other = layers.Dense(4), layers.Dense(4, name="other")

    def build(self, shape):
        self.taken.build(shape)
        self.other.build(shape)

    def call(self, inputs):
        return self.taken(inputs) if inputs.shape[-1] == 4 else self.other(inputs)


def model_of(layer: keras.Layer) -> keras.Model:
    """A model with the layer between others."""
    inner = [keras.Input((5,)), layers.Dense(4, name="before"), layer, layers.Dense(2)]
    model = compiled(keras.Sequential(inner))
    nudge(model)
    return model


def notes_on(model: keras.Model) -> dict[str, str]:
    """Place → what a note says of it."""
    found = pg.explain(model, X, Y).report
    assert found.equivalent and not any("failed" in remark for remark in found.remarks)
    assert {note.kind for note in found.notes} <= {"unconnected"}
    return {note.where.partition("/")[2]: note.because for note in found.notes}


def reasons_on(model: keras.Model) -> dict[str, str]:
    """The same of what a check says that passes, where the tape has no gradient at all."""
    report = pg.check_equivalence(model, X, Y)
    assert report.equivalent
    return {path.partition("/")[2]: reason for path, reason in report.unconnected.items()}


def _plain(x: tf.Tensor) -> tf.Tensor:
    return ops.cast(x, "float32")


REASONS = {
    "nothing reads it": (lambda layer, x: 0.0, "it is unused: nothing reads it"),
    "its product is dropped": (
        lambda layer, x: (x * layer.weight, 0.0)[1],
        "it is unused: what is made of it does not reach the loss",
    ),
    "stop_gradient": (
        lambda layer, x: 2.0 * ops.stop_gradient(layer.weight),
        "cut by stop_gradient, first in StopGradient",
    ),
    "prevent_gradient": (
        lambda layer, x: tf.raw_ops.PreventGradient(input=ops.stop_gradient(layer.weight)),
        "cut by stop_gradient, first in StopGradient",
    ),
    "cast to int": (
        lambda layer, x: _plain(ops.cast(3 * layer.weight, "int32")),
        "whole numbers are made of it, first in Cast",
    ),
    "argmax": (
        lambda layer, x: _plain(tf.argmax(layer.weight)),
        "whole numbers are made of it, first in ArgMax",
    ),
    "comparison": (
        lambda layer, x: _plain(layer.weight > 1),
        "whole numbers are made of it, first in Greater",
    ),
    "round": (lambda layer, x: ops.round(layer.weight), "no derivative, first Round"),
    "floor": (lambda layer, x: ops.floor(layer.weight), "no derivative, first Floor"),
    "two ways, both cut": (
        lambda layer, x: ops.stop_gradient(layer.weight) + ops.round(layer.weight),
        "cut by stop_gradient",
    ),
    "a branch of cond": (
        lambda layer, x: ops.cond(ops.sum(x**2) < 0, lambda: x * layer.weight, lambda: x),
        "in a branch that is not taken, of StatelessIf",
    ),
    "a branch of tf.cond": (
        lambda layer, x: tf.cond(tf.reduce_sum(x**2) < 0, lambda: x * layer.weight, lambda: x),
        "in a branch that is not taken, of StatelessIf",
    ),
}
FLAT = {
    "flat": lambda layer, x: ops.relu(-ops.abs(layer.weight) - 1),
    "cancels out": lambda layer, x: layer.weight - layer.weight,
}


@pytest.mark.parametrize("name", REASONS)
def test_each_reason_is_told(name):
    function, words = REASONS[name]
    reasons = reasons_on(model_of(Planted(function, name="planted")))
    assert [*reasons] == ["planted/weight"]
    assert words in reasons["planted/weight"]


@pytest.mark.parametrize("name", FLAT)
def test_a_derivative_of_exactly_zero_is_noted(name):
    notes = notes_on(model_of(Planted(FLAT[name], name="planted")))
    assert [*notes] == ["planted/weight"]
    assert "every derivative is exactly zero" in notes["planted/weight"]


def test_a_note_has_the_reason_and_the_remedy_that_goes_with_it():
    model = model_of(Planted(REASONS["stop_gradient"][0], name="planted"))
    [note] = pg.explain(model, X, Y).report.notes
    assert note.kind == "unconnected" and "cut by stop_gradient" in note.because
    assert "take the `stop_gradient` away" in note.remedy


def test_a_branch_of_python_that_is_not_taken():
    [reason] = reasons_on(model_of(Branching(None, name="planted"))).values()
    assert "a branch that is not taken: the code of Branching" in reason
    taken = Branching(None)
    taken.warm = True
    assert reasons_on(model_of(taken)) == {}


def test_a_layer_in_a_branch_of_python_that_is_not_taken():
    reasons = reasons_on(model_of(Routed(name="routed")))
    assert {*reasons} == {"routed/other/kernel", "routed/other/bias"}
    for reason in reasons.values():
        assert "the code of Routed" in reason and "names its layer" in reason


def test_a_layer_that_nothing_calls():
    start = keras.Input((5,))
    model = keras.Model(start, layers.Dense(2)(start))
    model.forgotten = layers.Dense(1, name="forgotten")
    model.forgotten.build((None, 5))
    reasons = pg.check_equivalence(compiled(model), X, Y).unconnected
    assert {*reasons} == {"forgotten/kernel", "forgotten/bias"}
    for reason in reasons.values():
        assert "unused: nothing calls its layer 'forgotten'" in reason


def test_a_weight_with_one_open_way_is_connected():
    """Cut on one way and not on the other; and a conditional whose branch is taken."""
    half = Planted(lambda layer, x: ops.stop_gradient(layer.weight) * layer.weight)
    assert notes_on(model_of(half)) == {}
    taken = Planted(
        lambda layer, x: ops.cond(ops.sum(x**2) >= 0, lambda: x * layer.weight, lambda: x)
    )
    assert notes_on(model_of(taken)) == {}


def test_frozen_layers_and_single_weights_are_one_note():
    model = model_of(layers.BatchNormalization(name="frozen", trainable=False))
    single = model.get_layer("before").bias
    single.trainable = False
    model.compile("sgd", "mse")
    [note] = pg.explain(model, X, Y).report.notes
    assert note.kind == "unconnected" and "(3 in all)" in note.because
    assert "before/bias" in note.because and "moving" not in note.because


def test_where_the_model_runs_on_few_sizes_the_reason_is_what_the_tape_knows():
    def of_few(layer, x):
        if x.shape[0] not in (None, 1, 12):
            raise ValueError("of another size")
        return ops.stop_gradient(layer.weight)

    [reason] = reasons_on(model_of(Planted(of_few, name="planted"))).values()
    assert "every way to the loss is cut (stop_gradient, an integer, argmax)" in reason


def test_factored_reads_nothing_off_whole_numbers_made_of_a_weight():
    """It followed the weight through the cast, and had to warn of wrong sample gradients."""
    planted = Planted(lambda layer, x: _plain(ops.cast(layer.weight, "int32")), name="planted")
    g = pg.per_sample_gradients(model_of(planted), X, Y, engine="factored")
    [rows] = [rows for path, rows in g.materialize().items() if "planted" in path]
    assert rows.shape == (12, 4) and not np.any(rows)
