"""What is said of what cannot be used: what happened, why, what to do, what was received."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.problems import compiled, floats

X, Y = floats(4, 3, seed=1), floats(4, 2, seed=2)


def _with_loss(function, **options) -> keras.Model:
    class OwnLoss(pg.PerGradSequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return function(y, y_pred)

    model = OwnLoss([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", **options)
    return model


def _and_one_more(y, y_pred):
    squares = ops.mean(ops.square(y - y_pred), axis=-1)
    return ops.concatenate([squares, ops.mean(y_pred)[None]], axis=0)


BAD_LOSSES = {
    "one more than samples": (_and_one_more, r"Reduce it.*Received: shape \((5|2),\)"),
    "integer": (lambda y, p: ops.cast(ops.sum(p), "int32"), "floating-point.*int32"),
    "none": (lambda y, p: None, "return the loss as a tensor.*NoneType"),
}


@pytest.mark.parametrize(("loss", "words"), BAD_LOSSES.values(), ids=list(BAD_LOSSES))
def test_what_is_no_loss(loss, words):
    with pytest.raises(pg.PerGradError, match=words):
        pg.per_sample_gradients(_with_loss(loss), X, Y)
    with pytest.raises(pg.PerGradError, match=words):
        _with_loss(loss, per_sample=True).fit(X, Y, verbose=0)


@pytest.mark.parametrize("way", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
@pytest.mark.parametrize("what", ["kernel_regularizer", "activity_regularizer"])
def test_a_loss_without_reduction_beside_a_regularizer(what, way):
    """Plain Keras cannot add the two either; the way out has the same gradient."""
    loss = keras.losses.MeanSquaredError

    def build(cls, loss, **options):
        model = cls([keras.Input((3,)), layers.Dense(2, **{what: "l2"})])
        model.compile("sgd", loss, **options)
        return model

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="Shapes"):
        build(keras.Sequential, loss(reduction=None), **way).fit(X, Y, verbose=0)
    words = r"cannot add a regularizer.*reduction='sum'.*Received: MeanSquaredError\(reduction=None"
    for ask in (pg.per_sample_gradients, pg.check_equivalence):
        with pytest.raises(pg.UnsupportedError, match=words):
            ask(build(keras.Sequential, loss(reduction=None)), X, Y)
    with pytest.raises(pg.UnsupportedError, match=words):
        measured = build(pg.PerGradSequential, loss(reduction=None), per_sample=True, **way)
        measured.fit(X, Y, verbose=0)


def test_the_way_out_of_a_loss_without_reduction_has_its_gradient():
    def gradient(reduction):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        model.compile("sgd", keras.losses.MeanSquaredError(reduction=reduction))
        return [np.asarray(mean) for mean in pg.per_sample_gradients(model, X, Y).mean()]

    for a, b in zip(gradient(None), gradient("sum"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)  # float32, four terms


def test_a_layer_made_in_call():
    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.early = layers.Dense(2)

        def call(self, inputs):
            return self.early(inputs) + layers.Dense(2)(inputs)

    model = Late()
    model(X)
    with pytest.raises(pg.PerGradError, match=r"new weight each time.*__init__.*Received"):
        pg.per_sample_gradients(compiled(model), X, Y)


def test_a_forgotten_super_init():
    class NoSuper(pg.PerGradModel):
        def __init__(self):
            self.width = 2

    with pytest.raises(pg.PerGradError, match=r"super\(\).__init__.*Received: a NoSuper"):
        NoSuper().compile("sgd", "mse", per_sample=True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda g: g.dot([np.ones((2, 3)), np.ones(2)]),  # as many numbers, transposed
        lambda g: g.dot([np.ones((3, 2))]),
        lambda g: g.sum(np.ones(3)),
        lambda g: g.sum(np.ones((4, 1))),
        lambda g: g.norms(by="sample"),
    ],
    ids=["dot_transposed", "dot_too_few", "sum_too_short", "sum_of_a_matrix", "by"],
)
def test_questions_in_the_wrong_shape(ask):
    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    with pytest.raises(pg.PerGradError, match="Received"):
        ask(pg.per_sample_gradients(model, X, Y))


@pytest.mark.parametrize(
    "options",
    [{"memory_budget": 0}, {"memory_budget": "1GB"}, {"rtol": -1.0}, {"rtol": "small"}],
    ids=str,
)
def test_numbers_that_are_none(options):
    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    with pytest.raises(pg.PerGradError, match="Received"):
        pg.check_equivalence(model, X, Y, **options)
    if "rtol" in options:
        with pytest.raises(pg.PerGradError, match="Received"):
            pg.EquivalenceCheck(**options)


@pytest.mark.parametrize("aggregator", [None, "mean"])
@pytest.mark.parametrize(
    "way",
    [{}, {"run_eagerly": True}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=["graph", "eager", "xla"],
)
def test_sizes_that_differ_only_while_training(way, aggregator):
    """Keras would lay the one label beside all four samples, without a word."""
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(aggregator=aggregator), **way)
    spec = tf.TensorSpec((None, 3)), tf.TensorSpec((None, 2))
    batches = tf.data.Dataset.from_generator(lambda: iter([(X, Y[:1])]), output_signature=spec)
    with pytest.raises(pg.DataError, match="'x': 4, 'y': 1"):
        model.fit(batches, shuffle=False, verbose=0)


def test_a_batch_in_chunks_is_told_in_the_report():
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample("vectorized", memory_budget=1))
    model.fit(X, Y, verbose=0)
    assert "B=4" in str(model.equivalence_report) and "chunks of 1" in str(model.equivalence_report)
    report = pg.check_equivalence(model, X, Y)
    assert report.equivalent and "chunks" not in str(report)


def test_a_healthy_row_is_not_marked_where_a_sample_is_not_a_number():
    x = X.copy()
    x[2] = np.nan
    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    report = pg.check_equivalence(model, x, Y)
    rows = [line for line in str(report).splitlines() if "dense" in line and "×" in line]
    assert rows and not any("FAIL" in line for line in rows)
    assert "cannot be judged" in report.mean.text


def test_long_paths_are_folded_between_their_parts():
    names = ["a_rather_long_name_of_a_layer", "and_another_one_behind_it"]
    chain = [layers.Dense(2, name=name) for name in names]
    model = compiled(keras.Sequential([keras.Input((3,)), *chain], name="model_with_a_name"))
    text = str(pg.check_equivalence(model, X, Y))
    for part in (*names, "kernel", "bias"):
        assert part in text


class Halves(keras.layers.Layer):
    """Cuts the batch into two halves: it does not run on a batch of one."""

    def call(self, inputs):
        return tf.concat(tf.split(inputs, 2), axis=0)


@pytest.mark.parametrize("engine", ["loop", "vectorized", "factored"])
def test_a_model_that_does_not_run_on_one_sample_is_told_so(engine):
    chain = [keras.Input((3,)), keras.layers.Dense(4), Halves(), keras.layers.Dense(2)]
    model = compiled(keras.Sequential(chain))
    with pytest.raises(pg.UnsupportedError, match=r"cannot (run|stack) the samples.*Received"):
        pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine).norms()
