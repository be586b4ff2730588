"""Samples that notice each other without a gradient coming of it: equivalent all the same."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import expect_exact

X, Y = floats(6, 3, seed=1), floats(6, 2, seed=2)


class Spread(layers.Layer):
    """The batch's variance, for each sample: watched, and in no loss."""

    def call(self, inputs):
        spread = ops.var(inputs, axis=0, keepdims=True)
        return inputs * 0.0 + spread


def _watched() -> keras.Model:
    start = keras.Input((3,))
    outputs = layers.Dense(2, name="p")(layers.Dense(4, "tanh")(start))
    model = keras.Model(start, {"p": outputs, "stat": Spread(name="stat")(outputs)})
    return compiled(model, {"p": "mse", "stat": None})


def _dense(loss) -> keras.Model:
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    return compiled(keras.Sequential(stack), loss)


def _beside_a_term_without_gradient(y, y_pred):
    spread = tf.math.reduce_variance(tf.stop_gradient(y_pred))
    return tf.reduce_mean(tf.square(y - y_pred)) + spread


class InAnotherOrder(layers.Layer):
    """The rows of the batch turned round."""

    def call(self, inputs):
        return ops.flip(inputs, axis=0)


def _in_another_order() -> keras.Model:
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2), InAnotherOrder()]
    return compiled(keras.Sequential(stack))


CASES = {
    "statistic in no loss": (_watched, {"p": Y}),
    "term without gradient": (lambda: _dense(_beside_a_term_without_gradient), Y),
    "predictions in another order, of labels that are all the same": (_in_another_order, 0 * Y),
}
each_case = pytest.mark.parametrize(("make", "y"), CASES.values(), ids=list(CASES))


@pytest.mark.thinned(3)
@each_case
@pytest.mark.parametrize("engine", ["vectorized", "loop", "factored"])
def test_every_sample_is_run_alone_and_that_decides(make, y, engine):
    model = make()
    own = oracle.own_gradients(model, X, y)
    batch = oracle.batch_gradient(model, X, y)
    means = [rows.mean(axis=0) for rows in own]
    assert oracle.largest_difference(means, batch) < 1e-6 * oracle.global_norm(batch)
    report = pg.check_equivalence(model, X, y, engine=engine)
    assert report.coupling.error > report.coupling.limit, "nobody notices: this shows nothing"
    assert report.equivalent and "all 6 samples" in report.oracle.text, str(report)
    json.dumps(report.to_dict())
    assert "run alone, have these gradients" in report.coupling.text


@pytest.mark.parametrize("way", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_in_fit_too(way):
    model = _watched()
    model.compile("sgd", {"p": "mse", "stat": None}, **way)
    with pg.attach(model, pg.PerSample(check="always")) as attached:
        model.fit(X, {"p": Y}, batch_size=4, verbose=0)  # and a partial batch
    report = attached.equivalence_report
    assert report.equivalent and "have these gradients" in report.coupling.text


def test_what_does_not_fit_the_memory_is_not_run_alone():
    """Then a probe that found something is believed, as the few that were asked prove little."""
    model, x = _watched(), floats(32, 3)
    report = pg.check_equivalence(model, x, {"p": floats(32, 2)}, memory_budget=4000)
    assert not report.equivalent and not report.coupling.passed
    assert "a few samples" in report.oracle.text


@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian", "factored"])
def test_contributions_of_a_loss_with_a_term_that_has_no_gradient(engine):
    model = _dense(_beside_a_term_without_gradient)
    batch = oracle.batch_gradient(model, X, Y)
    g = pg.per_sample_gradients(model, X, Y, engine=engine)
    found = [np.asarray(mean + term) for mean, term in zip(g.mean(), g.batch_term, strict=True)]
    expect_exact(found, batch)


def test_what_does_not_fit_one_chunk_is_not_run_alone_either():
    """Few weights, and many numbers a sample: it is the activations that do not fit."""
    start = keras.Input((3,))
    hidden = layers.Dense(4000, trainable=False)(start)
    outputs = layers.Dense(1, name="p")(layers.Reshape((1000, 4))(hidden))
    pooled = layers.GlobalAveragePooling1D(name="q")(outputs)
    model = keras.Model(start, {"q": pooled, "stat": Spread(name="stat")(pooled)})
    compiled(model, {"q": "mse", "stat": None})
    batch = floats(32, 3), {"q": floats(32, 1)}
    assert pg.check_equivalence(model, *batch).equivalent
    report = pg.check_equivalence(model, *batch, memory_budget=60_000)
    assert not report.equivalent and "a few samples" in report.oracle.text
