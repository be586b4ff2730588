"""What is promised of noise, copies, interruptions, refusals and chunks, each shown once."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import expect_exact, materialized
from tests.twins import BATCH, data, dense, expect_bit_equal, trained

slow = pytest.mark.slow
ALWAYS = pg.PerSample(check="always")
# What Keras itself says when it copies through its saving.
copied_by_keras = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Noise(layers.Layer):
    """Scales by noise from `draw(shape, seeds)`; the scale is a weight of its own."""

    def __init__(self, draw, **options):
        super().__init__(**options)
        self.draw = draw
        self.seeds = keras.random.SeedGenerator(3)

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        noise = ops.cast(self.draw(ops.shape(inputs), self.seeds), inputs.dtype)
        return inputs * (1.0 + self.scale * noise)


DRAWS = {
    "stateless_normal": lambda shape, seeds: tf.random.stateless_normal(shape, [3, 4]),
    "normal": lambda shape, seeds: keras.random.normal(shape, seed=seeds),
    "uniform": lambda shape, seeds: keras.random.uniform(shape, seed=seeds),
    "truncated_normal": lambda shape, seeds: keras.random.truncated_normal(shape, seed=seeds),
    "gamma": lambda shape, seeds: keras.random.gamma(shape, 2.0, seed=seeds),
    "beta": lambda shape, seeds: keras.random.beta(shape, 2.0, 3.0, seed=seeds),
    "binomial": lambda shape, seeds: keras.random.binomial(shape, 5.0, 0.4, seed=seeds),
    "randint": lambda shape, seeds: keras.random.randint(shape, 0, 5, seed=seeds),
    "dropout": lambda shape, seeds: keras.random.dropout(tf.ones(shape), 0.4, seed=seeds),
}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("stateless_normal", "uniform", "dropout")
        else pytest.param(name, marks=slow)
        for name in DRAWS
    ],
)
def test_noise_is_replayed_exactly(name):
    model = compiled(
        keras.Sequential([keras.Input((3,)), layers.Dense(4), Noise(DRAWS[name]), layers.Dense(2)])
    )
    same = np.repeat(floats(1, 3, seed=1), 5, axis=0), np.repeat(floats(1, 2, seed=2), 5, axis=0)
    by_loop = materialized(model, *same, engine="loop", of="own")
    vectorized = pg.per_sample_gradients(model, *same, engine="vectorized", of="own")
    expect_exact([np.asarray(v) for v in vectorized.materialize().values()], by_loop)
    # The oracle draws the batch's noise in plain Keras: both engines could be wrong alike.
    batch = oracle.batch_gradient(model, *same)
    expect_exact([np.asarray(mean) for mean in vectorized.mean()], batch)
    assert any(np.any(g != g[:1]) for g in by_loop), "equal samples drew equal noise"
    assert pg.check_equivalence(model, *same).equivalent


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


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@copied_by_keras
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("way", [pytest.param("deepcopy", marks=slow), "pickle"])
def test_a_copy_of_a_compiled_model_is_measured_and_trains_alike(way):
    x, y, _ = data()
    model, _ = trained(dense, ALWAYS, optimizer="adam")
    other = COPIES[way](model)
    assert type(other) is type(model) and other.per_sample == ALWAYS
    assert other.equivalence_report is None
    for each in (model, other):
        each.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert other.equivalence_report.equivalent and other is not model
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@copied_by_keras
@pytest.mark.parametrize("way", ["deepcopy", pytest.param("pickle", marks=slow)])
def test_a_copy_of_an_attached_model_is_plain_and_the_original_stays_measured(way):
    x, y, _ = data()
    model, _ = trained(dense, None, optimizer="adam")
    with pg.attach(model, ALWAYS) as attached:
        other = COPIES[way](model)
        other.fit(x, y, verbose=0)
        assert attached.equivalence_report is None
        pg.attach(other)  # it is not attached
        model.fit(x, y, verbose=0)
        assert attached.equivalence_report.equivalent


def _unbuilt(functional: type, sequential: type) -> keras.Model:
    class CallStyle(functional):
        def __init__(self):
            super().__init__()
            self.first, self.drop = layers.Dense(4, "tanh"), layers.Dropout(0.3)
            self.second = layers.Dense(2)

        def call(self, inputs, training=False):
            return self.second(self.drop(self.first(inputs), training=training))

    model = CallStyle()
    assert not model.built
    return model


@pytest.mark.usefixtures("deterministic")
def test_a_model_that_fit_has_to_build():
    plain, measured = trained(_unbuilt, None), trained(_unbuilt, ALWAYS)
    expect_bit_equal(plain, measured)
    report = measured[0].equivalence_report
    assert report.equivalent and len(report.rows) == 4


@pytest.mark.usefixtures("deterministic")
def test_two_models_trained_in_turns_do_not_mix():
    """Each is bit-equal to plain Keras, trained alone one after the other."""
    x, y, _ = data()

    def pair(functional, sequential, **options):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        models = [make(functional, sequential) for make in (_unbuilt, dense)]
        for model in models:
            model.compile("adam", "mse", **options)
        return models

    plain = pair(keras.Model, keras.Sequential)
    for model in plain:
        for k in range(3):
            model.train_on_batch(x[k * 4 : k * 4 + 4], y[k * 4 : k * 4 + 4])
    measured = pair(pg.PerGradModel, pg.PerGradSequential, per_sample=ALWAYS)
    for k in range(3):
        for model in measured:
            model.train_on_batch(x[k * 4 : k * 4 + 4], y[k * 4 : k * 4 + 4])
    for one, other in zip(plain, measured, strict=True):
        expect_bit_equal((one, {}), (other, {}))
        report = other.equivalence_report
        assert report.equivalent
        assert [row.path for row in report.rows] == [v.path for v in other.trainable_variables]


@pytest.mark.usefixtures("deterministic")
def test_an_interrupted_fit_can_be_taken_up_again():
    def fit(model):
        def interrupt(batch, logs):
            if batch == 1:
                raise KeyboardInterrupt

        x, y, _ = data()
        with pytest.raises(KeyboardInterrupt):
            callback = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
            model.fit(x, y, batch_size=BATCH, shuffle=False, callbacks=[callback], verbose=0)
        assert int(model.optimizer.iterations) == 2
        return model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)

    plain = trained(dense, None, fit=fit, optimizer="adam")
    measured = trained(dense, ALWAYS, fit=fit, optimizer="adam")
    expect_bit_equal(plain, measured)
    assert measured[0].equivalence_report.equivalent


def _noise_in_a_loop(inputs):
    return tf.while_loop(
        lambda k, v: k < tf.cast(tf.reduce_sum(tf.ones([3])), tf.int32),
        lambda k, v: (k + 1, v + keras.random.normal(tf.shape(v), seed=SEEDS[0])),
        (tf.constant(0), inputs),
    )[1]


SEEDS: list = [None]


@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian"])
def test_noise_drawn_inside_a_loop_is_refused(engine):
    model = pg.PerGradSequential(
        [keras.Input((3,)), layers.Dense(3), layers.Lambda(_noise_in_a_loop), layers.Dense(2)]
    )
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine=engine))
    x, y, _ = data()
    with pytest.raises(pg.UnsupportedError, match="inside a loop"):
        model.fit(x, y, batch_size=BATCH, verbose=0)


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
