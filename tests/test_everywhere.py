"""The same answers in a graph and under XLA; the same alarms by `attach` and batch by batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests import planted
from tests.problems import compiled, floats
from tests.samples import each_engine
from tests.twins import dense

WRONG = pg.PerSample(planted.Planted(planted.scaled(1.01)))
BATCH = floats(4, 3, seed=1), floats(4, 2, seed=2)


def _every_answer(model, engine, x, y):
    g = pg.per_sample_gradients(model, x, y, engine=engine)
    mean = g.mean()
    return {
        "losses": g.losses,
        "mean": mean,
        "sum": g.sum(),
        "weighted sum": g.sum(tf.constant([1.0, -2.0, 0.5, 3.0])),
        "squared norms": g.squared_norms(),
        "norms": g.norms(),
        "norms by variable": g.norms(by="variable"),
        "norms by layer": g.norms(by="layer"),
        "dot": g.dot(mean),
        "dot by layer": g.dot(mean, by="layer"),
        "projections": g.projections(),
        "projections by variable": g.projections(by="variable"),
        "gram": g.gram(),
        "second moment": g.second_moment(),
        "materialize": g.materialize(),
        "batch term": g.batch_term,
    }


@each_engine
@pytest.mark.parametrize("way", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_every_answer_is_the_same_in_a_compiled_function(engine, way):
    stack = [layers.Dense(4, "tanh", kernel_regularizer="l2"), layers.Dense(2)]
    model = compiled(keras.Sequential([keras.Input((3,)), *stack]))
    expected = _every_answer(model, engine, *BATCH)
    compile_it = tf.function(jit_compile=way == "xla")
    found = compile_it(lambda x, y: _every_answer(model, engine, x, y))(*map(tf.constant, BATCH))
    for name, value in expected.items():
        for a, b in zip(tf.nest.flatten(found[name]), tf.nest.flatten(value), strict=True):
            # float32, of about 1.
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


def test_norms_by_layer_tell_nested_layers_apart():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="p"), layers.Dense(3, name="q")], name="inner"
    )
    start = keras.Input((3,))
    model = compiled(keras.Model(start, layers.Dense(2, name="out")(inner(start)), name="outer"))
    g = pg.per_sample_gradients(model, *BATCH)
    by_layer = g.squared_norms(by="layer")
    assert len(by_layer) == 3 and [name.split("/")[-1] for name in by_layer] == ["p", "q", "out"]
    np.testing.assert_allclose(sum(by_layer.values()), g.squared_norms(), rtol=1e-6)


def test_a_wrong_gradient_raises_through_attach():
    model = dense(keras.Model, keras.Sequential)
    model.compile("sgd", "mse")
    with pg.attach(model, WRONG), pytest.raises(pg.EquivalenceError):
        model.fit(*BATCH, verbose=0)


@pytest.mark.parametrize("way", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_a_wrong_gradient_raises_batch_by_batch(way):
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    model.compile("sgd", "mse", per_sample=WRONG, **way)
    with pytest.raises(pg.EquivalenceError):
        model.train_on_batch(*BATCH)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_wrong_gradient_raises_in_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    wrong = planted.Planted(planted.scaled_everywhere(1.05))
    model.compile("sgd", "mse", per_sample=pg.PerSample(wrong))
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(*BATCH, verbose=0)
    assert caught.value.report.tolerance.dtype == policy.removeprefix("mixed_")


def test_one_weight_a_sample_against_a_loss_a_position_in_fit():
    model = pg.PerGradSequential([keras.Input((4, 3)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.DataError, match=r"\(.*4\)"):
        model.fit(floats(8, 4, 3), floats(8, 4, 2), sample_weight=floats(8), verbose=0)


def test_leaves_of_one_input_that_differ_are_listed():
    start = keras.Input((3,)), keras.Input((3,))
    model = compiled(keras.Model(start, layers.Dense(2)(layers.Add()(start))))
    with pytest.raises(pg.DataError, match=r"'x': \[4, 1\], 'y': 4"):
        pg.per_sample_gradients(model, [floats(4, 3), floats(1, 3)], floats(4, 2))


@each_engine
def test_where_all_is_masked_there_is_zero_and_no_nan(engine):
    stack = [keras.Input((3, 2)), layers.Masking(), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    g = pg.per_sample_gradients(
        model, np.zeros((4, 3, 2), "float32"), floats(4, 3, 2), engine=engine
    )
    for value in [g.losses, g.norms(), *g.mean(), *g.materialize().values()]:
        np.testing.assert_array_equal(value, np.zeros(value.shape))


def _words() -> keras.Model:
    vocabulary = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4)
    start = keras.Input((), dtype="string")
    hidden = layers.Flatten()(layers.Embedding(4, 2)(vocabulary(start)))
    return pg.PerGradModel(start, layers.Dense(2)(hidden))


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("engine", "able"), [("vectorized", False), ("loop", True)])
def test_an_operation_that_cannot_be_stacked_is_told_in_fit_too(engine, able):
    """TensorFlow notices when it runs, in words of its own about lists of tensors."""
    model = _words()
    model.compile("sgd", "mse", per_sample=engine)
    batch = tf.constant(["a b", "b b a", "a", "b"]), floats(4, 2)
    if able:
        model.fit(*batch, verbose=0)
        assert model.equivalence_report.equivalent
        return
    with pytest.raises(pg.UnsupportedError, match="engine='loop'"):
        model.fit(*batch, verbose=0)
