"""What is promised of missing labels, skipped steps, refusals and chunks, each shown once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import expect_exact, materialized
from tests.twins import data, dense


@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian"])
def test_labels_for_one_output_of_two(engine):
    start = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(start)
    outputs = {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    model = compiled(keras.Model(start, outputs), {"a": "mse", "b": None})
    batch = floats(4, 3, seed=1), {"a": floats(4, 2, seed=2)}
    expect_exact(
        materialized(model, *batch, engine=engine, of="own"), oracle.own_gradients(model, *batch)
    )
    report = pg.check_equivalence(model, *batch, engine=engine)
    assert report.equivalent
    assert set(report.unconnected) == {"b/kernel", "b/bias"}


ALWAYS = pg.PerSample(check="always")


def test_a_float16_step_that_overflows_is_left_out_of_the_check():
    keras.config.set_dtype_policy("mixed_float16")
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    model.compile(keras.optimizers.SGD(0.01), "mse", per_sample=ALWAYS)
    x, y, _ = data()
    calm = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(x[:8], y[:8], **calm)
    assert model.equivalence_report.step == 1
    before, scale = model.get_weights(), float(model.optimizer.dynamic_scale)
    # Loss and targets are float32, but the gradient of the outputs is beyond float16.
    model.fit(x[:4], 1e6 * y[:4], **calm)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(model.optimizer.dynamic_scale) == scale / 2
    assert model.equivalence_report.step == 1
    model.fit(x[:8], y[:8], **calm)
    assert model.equivalence_report.step == 4 and model.equivalence_report.equivalent
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("engine", ["loop", "vectorized"])
def test_the_refusal_of_a_stateful_layer_names_it(engine):
    start = keras.Input(batch_shape=(4, 3, 2))
    hidden = layers.LSTM(3, stateful=True, name="memory")(start)
    model = compiled(keras.Model(start, layers.Dense(2)(hidden)))
    with pytest.raises(pg.UnsupportedError, match=r"'(.*/)?memory'.*engine='jacobian'"):
        pg.per_sample_gradients(model, floats(4, 3, 2), floats(4, 2), engine=engine)


@pytest.mark.parametrize("engine", ["vectorized", "jacobian"])
def test_the_refusal_of_a_python_function_names_its_layer(engine):
    def python(values):
        return tf.ensure_shape(tf.py_function(lambda v: 2 * v, [values], tf.float32), values.shape)

    chain = [keras.Input((3,)), layers.Dense(3), layers.Lambda(python, name="by_hand")]
    model = compiled(keras.Sequential([*chain, layers.Dense(2)]))
    with pytest.raises(pg.UnsupportedError, match=r"'.*by_hand.*engine='loop'"):
        pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine).norms()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ["vectorized", "jacobian"])
def test_chunks_are_equal_to_the_whole(engine):
    chain = [layers.Conv1D(3, 2, activation="tanh"), layers.Dropout(0.3, seed=1), layers.Flatten()]
    model = compiled(keras.Sequential([keras.Input((4, 2)), *chain, layers.Dense(2)]))
    batch = floats(7, 4, 2, seed=1), floats(7, 2, seed=2)
    whole = pg.per_sample_gradients(model, *batch, engine=engine)
    assert "one chunk" in whole.summary()
    for chunk in (1, 3):
        budget = chunk * whole.blocks.bytes_each
        parts = pg.per_sample_gradients(model, *batch, engine=engine, memory_budget=budget)
        assert f"chunks of {chunk}" in parts.summary()
        for name in ("losses", "norms", "mean", "gram", "materialize"):
            found, expected = (getattr(g, name) for g in (parts, whole))
            found, expected = (v() if callable(v) else v for v in (found, expected))
            for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
                # float64 keeps 1e-16; 1e-12 leaves it a sum of thousands in another order.
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)
