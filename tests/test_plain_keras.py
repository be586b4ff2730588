"""`per_sample=None` is plain Keras, at no cost: its own train function, of as many operations."""

from collections import Counter

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.twins import data, dense, noisy

PLAIN, OURS = (keras.Model, keras.Sequential), (pg.PerGradModel, pg.PerGradSequential)


class Plain(keras.Model):
    """A subclass with a `call`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(4, "tanh"), layers.Dense(2)

    def call(self, inputs):
        return self.second(self.first(inputs))


class Ours(pg.PerGradMixin, Plain):
    """The same with the mixin."""


def subclass(functional: type, sequential: type) -> keras.Model:
    """Built before `fit`, as the others are."""
    model = Plain() if functional is keras.Model else Ours()
    model(data()[0])
    return model


def _compiled(make, classes, **options) -> keras.Model:
    keras.utils.clear_session(free_memory=False)
    model = make(*classes)
    model.compile("adam", "mse", metrics=["mae"], **options)
    model.make_train_function()
    return model


def _origin(function) -> tuple[str, str]:
    """Where a function, or the function in a `tf.function`, was written."""
    inner = getattr(function, "python_function", function)
    return inner.__module__, inner.__qualname__


def _operations(model) -> Counter:
    """How often each kind of operation is in the traced training step, functions included."""
    x, y, _ = data()
    step = tf.function(model.train_step).get_concrete_function((tf.constant(x), tf.constant(y)))
    definition = step.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return Counter(node.op for node in nodes)


@pytest.mark.parametrize("make", [dense, noisy, subclass])
def test_the_traced_step_has_the_operations_of_plain_keras(make):
    plain = _operations(_compiled(make, PLAIN))
    assert _operations(_compiled(make, OURS)) == plain
    assert plain.total() > 50


def test_one_more_metric_is_seen_in_the_number_of_operations():
    """Else the comparison above would not notice much either."""
    more = _compiled(dense, OURS)
    more.compile("adam", "mse", metrics=["mae", "mse"])
    assert _operations(more).total() > _operations(_compiled(dense, PLAIN)).total()


@pytest.mark.parametrize("per_sample", [None, False], ids=str)
def test_the_train_function_is_keras_own(per_sample):
    plain = _compiled(dense, PLAIN)
    model = _compiled(dense, OURS, per_sample=per_sample)
    assert _origin(model.train_function) == _origin(plain.train_function)
    assert model.per_sample is None and model.equivalence_report is None
    measured = _compiled(dense, OURS, per_sample=True)
    assert _origin(measured.train_function)[0].startswith("keras_pergrad")


def test_a_detached_model_has_keras_own_train_function_again():
    model = _compiled(dense, PLAIN)
    origin = _origin(model.train_function)
    with pg.attach(model):
        assert _origin(model.make_train_function())[0].startswith("keras_pergrad")
    model.make_train_function()
    assert _origin(model.train_function) == origin
    assert model.train_step.__func__ is keras.Model.train_step
