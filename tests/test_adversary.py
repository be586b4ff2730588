"""Ways to be silently wrong that were found by looking for them: each is exact, or refused."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats

ISOLATED = ("loop", "vectorized")


def masked_by_hand(y_true, y_pred):
    """The mean over the valid positions of the batch, reduced by the user."""
    losses = keras.losses.sparse_categorical_crossentropy(
        ops.maximum(y_true, 0), y_pred, from_logits=True
    )
    mask = ops.cast(ops.greater_equal(y_true, 0), losses.dtype)
    return ops.sum(losses * mask) / ops.sum(mask)


@pytest.mark.parametrize("engine", ISOLATED)
def test_losses_that_agree_by_accident_do_not_prove_a_mean(engine):
    """With a zero head every sample's loss is log 5, whatever its weight in the batch."""
    head = layers.Dense(5, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(8, "tanh"), head])
    model.compile("sgd", masked_by_hand)
    labels = np.random.default_rng(0).integers(0, 5, (4, 6))
    labels[0, 1:] = labels[1, 3:] = -1
    with pytest.raises(pg.SeparationError):
        pg.per_sample_gradients(model, floats(4, 6, 4), labels, engine=engine)


class Critic(keras.Model):
    """A sum over the batch whose values are all zero at the start."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(4, "tanh")
        self.head = layers.Dense(1, kernel_initializer="zeros")

    def call(self, inputs):
        return self.head(self.body(inputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(y * y_pred)


@pytest.mark.parametrize("engine", ISOLATED)
def test_a_sum_of_losses_that_are_zero_is_a_sum(engine):
    model, x, y = Critic(), floats(4, 3, seed=1), floats(4, 1, seed=2)
    model(x)
    model.compile("sgd")
    found = pg.per_sample_gradients(model, x, y, engine=engine).mean()
    for mean, batch in zip(found, oracle.batch_gradient(model, x, y, None), strict=True):
        np.testing.assert_allclose(mean, batch, rtol=1e-5, atol=1e-6)


class KeepsItsCode(keras.Model):
    """The usual VAE: `call` leaves a tensor on the model that `compute_loss` reads."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = layers.Dense(4), layers.Dense(3, kernel_regularizer="l2")

    def call(self, inputs):
        self.code = self.encode(inputs)
        return self.decode(ops.tanh(self.code))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.square(x - y_pred)) + 0.1 * ops.mean(ops.square(self.code))
        return loss + sum(self.losses)


@pytest.mark.parametrize("engine", ISOLATED)
def test_a_loss_that_reads_what_call_left_on_the_model(engine):
    model, x = KeepsItsCode(), floats(4, 3, seed=1)
    model(floats(7, 3, seed=9))  # a stale code of another batch size
    model.compile("sgd")
    found = pg.per_sample_gradients(model, x, engine=engine)
    expected = oracle.batch_gradient(model, x, None, None)
    for mean, term, batch in zip(found.mean(), found.batch_term, expected, strict=True):
        np.testing.assert_allclose(mean + term, batch, rtol=1e-5, atol=1e-6)
    assert pg.check_equivalence(model, x, engine=engine).equivalent


class Drawing(layers.Layer):
    """Multiplies by noise from `draw(layer, shape)`."""

    def __init__(self, draw, **options):
        super().__init__(**options)
        self.draw = draw
        self.generator = tf.random.Generator.from_seed(1)
        self.seeds = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return inputs * self.draw(self, ops.shape(inputs)) + self.mean

    def compute_output_shape(self, shape):
        return shape


def _raw(layer, shape):
    return tf.raw_ops.RandomStandardNormal(shape=shape, dtype=tf.float32, seed=1, seed2=2)


def _generator(layer, shape):
    return layer.generator.normal(shape)


def _shuffled(layer, shape):
    return tf.random.shuffle(tf.ones(shape))


def _parameterized(layer, shape):
    seed = tf.cast(layer.seeds.next(), tf.int32)
    one = tf.ones(())
    return tf.random.stateless_parameterized_truncated_normal(
        shape, seed, tf.convert_to_tensor(layer.mean), one, -one, one
    )


@pytest.mark.parametrize("draw", [_raw, _generator, _shuffled, _parameterized])
@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_noise_that_cannot_be_replayed_is_refused(engine, draw):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(Drawing(draw)(inputs))))
    layer = model.layers[1]
    state = layer.generator.state.numpy().copy()
    with pytest.raises(pg.UnsupportedError):
        found = pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine, of="own")
        found.norms()
    np.testing.assert_array_equal(layer.generator.state.numpy(), state)


class Counting(layers.Layer):
    """Counts its runs in a variable that Keras does not track."""

    def __init__(self, **options):
        super().__init__(**options)
        self.runs = tf.Variable(0.0, trainable=False)

    def call(self, inputs):
        self.runs.assign_add(1.0)
        return inputs * 1.0


@pytest.mark.parametrize("engine", ISOLATED)
def test_a_layer_that_writes_a_variable_of_tensorflow_is_refused_and_left_alone(engine):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(Counting()(inputs))))
    model.layers[1].runs.assign(5.0)
    with pytest.raises(pg.UnsupportedError, match=r"tf\.Variable"):
        pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine).norms()
    with pytest.raises(pg.UnsupportedError, match=r"tf\.Variable"):
        pg.check_equivalence(model, floats(4, 3), floats(4, 2), engine=engine)
    assert float(model.layers[1].runs) == 5.0


def test_a_check_does_not_create_the_global_seed_or_advance_pythons():
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(ops.shape(inputs))

    def first_draw(check: bool) -> tuple[np.ndarray, float]:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(3)
        keras.src.backend.common.global_state.set_global_attribute("global_seed_generator", None)
        model = keras.Sequential([layers.Dense(3), Noise(), layers.Dense(2)])
        model.build((None, 3))
        model.compile("sgd", "mse")
        if check:
            pg.check_equivalence(model, floats(4, 3), floats(4, 2))
            pg.per_sample_gradients(model, floats(4, 3), floats(4, 2)).norms()
        return keras.ops.convert_to_numpy(keras.random.normal((2,))), random.random()

    plain, checked = first_draw(False), first_draw(True)
    np.testing.assert_array_equal(plain[0], checked[0])
    assert plain[1] == checked[1]


class Nested(layers.Layer):
    """Appends to lists inside other containers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.kept = {"seen": []}

    def call(self, inputs):
        self.kept["seen"].append("run")
        return inputs * 1.0


def test_nested_containers_of_a_layer_are_put_back():
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(Nested()(inputs))))
    before = len(model.layers[1].kept["seen"])
    pg.check_equivalence(model, floats(4, 3), floats(4, 2))
    assert len(model.layers[1].kept["seen"]) == before


@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_rows_of_what_the_forward_pass_kept_are_the_samples_own(engine):
    model, x = KeepsItsCode(), floats(4, 3, seed=1)
    model(x)
    model.compile("sgd")
    found = pg.per_sample_gradients(model, x, engine=engine, of="own").materialize()
    expected = pg.per_sample_gradients(model, x, engine="loop", of="own").materialize()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(-1, 4), (3, -1, 4)])
@pytest.mark.parametrize("engine", ISOLATED)
def test_noise_with_samples_and_positions_in_one_axis_is_refused(engine, shape):
    start = keras.Input((3, 2))
    hidden = layers.Dense(4)(start)
    if len(shape) == 3:
        hidden = ops.transpose(hidden, (1, 0, 2))  # time-major
    hidden = layers.Dropout(0.5, seed=1)(ops.reshape(hidden, (-1, 4)))
    model = keras.Model(start, ops.reshape(hidden, (-1, 3, 4)))
    model.compile("sgd", "mse")
    with pytest.raises(pg.UnsupportedError, match="merged into one axis"):
        found = pg.per_sample_gradients(
            model, floats(5, 3, 2), floats(5, 3, 4), engine=engine, of="own"
        )
        found.norms()


def test_a_model_that_trains_another_number_of_weights_is_watched_anew():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = floats(8, 3), floats(8, 2)
    with pg.attach(model, pg.PerSample(check="always")) as attached:
        model.fit(x, y, verbose=0)
        assert len(attached.equivalence_report.rows) == 4
        model.layers[0].trainable = False
        model.compile("sgd", "mse")
        model.fit(x, y, verbose=0)
        assert len(attached.equivalence_report.rows) == 2


class Helper:
    """Keeps a tensor of the last run for a metric."""

    code = None


class KeepsOnAHelper(pg.PerGradModel):
    """Reads in `compute_metrics` what `call` left on an object that is no layer."""

    def __init__(self):
        super().__init__()
        self.head, self.helper = layers.Dense(2), Helper()
        self.size = keras.metrics.Mean(name="size")

    def call(self, inputs):
        self.helper.code = self.head(inputs)
        return self.helper.code

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.size.update_state(ops.mean(ops.abs(self.helper.code)))
        return self.get_metrics_result()


def test_a_metric_may_read_what_the_step_kept_on_a_helper():
    model = KeepsOnAHelper()
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="always"))
    history = model.fit(floats(8, 3), floats(8, 2), verbose=0).history
    assert np.isfinite(history["size"]).all()


def test_a_check_inside_a_function_says_where_it_belongs():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(pg.PerGradError, match=r"inside a tf\.function"):
        tf.function(pg.check_equivalence)(model, tf.ones((4, 3)), tf.ones((4, 2)))


@pytest.mark.parametrize("axis", [-1, 1, (-1, -2)])
@pytest.mark.parametrize("engine", ("vectorized", "jacobian"))
def test_rolling_along_an_axis_counted_from_the_end(engine, axis):
    start = keras.Input((3, 4))
    shift = 1 if isinstance(axis, int) else (1, 2)
    rolled = layers.Lambda(lambda v: tf.roll(v, shift, axis))(layers.Dense(4)(start))
    model = keras.Model(start, layers.Dense(2)(rolled))
    model.compile("sgd", "mse")
    x, y = floats(4, 3, 4, seed=1), floats(4, 3, 2, seed=2)
    found = pg.per_sample_gradients(model, x, y, engine=engine, of="own").materialize()
    expected = pg.per_sample_gradients(model, x, y, engine="loop", of="own").materialize()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6)


def test_one_sample_where_more_might_come():
    """Keras squeezes what an LSTM adds to its gates; of one sample, stacking lost its axis too.

    So `fit` stopped at a last batch of one sample, of a size that is not known while tracing.
    """
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(3)])
    model.compile("sgd", "mse")

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 2)), tf.TensorSpec((None, 3))])
    def rows(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="vectorized", of="own")
        return list(g.materialize().values())

    x, y = floats(3, 3, 2, seed=1), floats(3, 3, seed=2)
    expected = oracle.own_gradients(model, x, y)
    for size in (1, 3):
        found = [np.asarray(row) for row in rows(x[:size], y[:size])]
        wanted = [row[:size] for row in expected]
        assert oracle.largest_difference(found, wanted) <= 1e-5 * oracle.global_norm(wanted)


def test_norms_of_half_precision_gradients_are_accumulated_in_single():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(64, dtype="float16")])
    model.compile("sgd", "mse")
    x, y = 40 * floats(4, 3, seed=1), 900 * floats(4, 64, seed=2)
    found = pg.per_sample_gradients(model, x, y, engine="vectorized", of="own")
    rows = [np.asarray(v, "float64").reshape(4, -1) for v in found.materialize().values()]
    expected = np.linalg.norm(np.concatenate(rows, axis=1), axis=1)
    assert expected.max() > 256  # its square is beyond float16
    np.testing.assert_allclose(found.norms(), expected, rtol=1e-5)


class SumOfSquares(keras.Model):
    """A sum over the batch, reduced by hand."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(1)

    def call(self, inputs):
        return self.head(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(y - y_pred))


def test_a_sum_at_its_optimum_is_still_a_sum():
    model, x, y = SumOfSquares(), floats(16, 3, seed=1), floats(16, 1, seed=2)
    model(x)
    model.compile("sgd")
    best = np.linalg.lstsq(np.hstack([x, np.ones((16, 1), x.dtype)]), y, rcond=None)[0]
    model.set_weights([best[:3], best[3]])
    own = pg.per_sample_gradients(model, x, y, of="own").norms()
    contributions = pg.per_sample_gradients(model, x, y).norms()
    np.testing.assert_allclose(contributions, 16 * own, rtol=1e-5)


class PastKeras(layers.Layer):
    """Reads the TensorFlow variable behind its weight."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        return tf.matmul(inputs, tf.identity(self.kernel._value))


@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_a_weight_read_past_keras_is_refused(engine):
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(PastKeras()(inputs))))
    with pytest.raises(pg.UnsupportedError, match=r"kernel.*past Keras"):
        found = pg.per_sample_gradients(model, floats(4, 3), floats(4, 2), engine=engine, of="own")
        found.norms()


class PassesOn(keras.Sequential):
    """A step of its own that ends in Keras' step."""

    def train_step(self, data):
        return super().train_step(data)


def test_own_steps_are_refused_wherever_they_are():
    class Mixed(pg.PerGradMixin, PassesOn):
        pass

    stack = [keras.Input((3,)), layers.Dense(2)]
    with pytest.raises(pg.TrainStepError):
        Mixed(stack).compile("sgd", "mse", per_sample=True)
    model = PassesOn(stack)
    model.compile("sgd", "mse")
    with pytest.raises(pg.TrainStepError):
        pg.attach(model)
    model = pg.PerGradSequential(stack)
    model.train_step = lambda data: {}
    with pytest.raises(pg.TrainStepError, match="itself"):
        model.compile("sgd", "mse", per_sample=True)

    class Above(pg.PerGradSequential):
        def train_step(self, data):
            return super().train_step(data)

    model = Above(stack)
    model.compile("sgd", "mse", per_sample=True)
    model.fit(floats(4, 3), floats(4, 2), verbose=0)
    assert model.equivalence_report.equivalent


def test_the_mean_under_batch_statistics_is_not_applied_without_a_check():
    layer = layers.BatchNormalization(name="normalization")
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(4), layer, layers.Dense(2)])
    settings = pg.PerSample("vectorized", check="off", aggregator="mean")
    model.compile("sgd", "mse", per_sample=settings)
    with (
        pytest.warns(pg.EquivalenceWarning, match="normalization"),
        pytest.raises(pg.SeparationError, match="do not add up"),
    ):
        model.fit(floats(4, 3, seed=1), floats(4, 2, seed=2), verbose=0)


def test_a_failed_report_has_its_causes_also_when_it_was_raised():
    stack = [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    model = pg.PerGradSequential(stack)
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(floats(4, 3, seed=1), floats(4, 2, seed=2), verbose=0)
    assert model.equivalence_report is caught.value.report
    assert [cause.kind for cause in caught.value.report.causes] == ["batch_normalization"]


def test_a_sandbox_that_is_not_training_does_not_break_the_tie():
    """A layer that gives another number in a sandbox: float64 must not acquit it."""

    class Cheating(layers.Layer):
        def call(self, inputs):
            sandboxed = keras.src.backend.in_stateless_scope()
            return inputs * (1.005 if sandboxed else 1.0)

    stack = [keras.Input((3,)), layers.Dense(4), Cheating(), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    assert not pg.check_equivalence(model, floats(4, 3, seed=1), floats(4, 2, seed=2)).equivalent


def test_a_batch_without_rows_in_fit_is_passed_over():
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="always"))
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 2)))

    def batches():
        for size in (4, 0, 3):
            yield floats(size, 3), floats(size, 2)

    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras', for a data set without size
        model.fit(data, shuffle=False, verbose=0)
    assert model.equivalence_report.num_samples in (3, 4)


class MovingAverage(layers.Layer):
    """Assigns a state of its own from the batch, and reads it back into a loss."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.average = self.add_weight(
            shape=(4,), initializer="zeros", trainable=False, name="average"
        )

    def call(self, inputs):
        hidden = ops.matmul(inputs, self.kernel)
        self.average.assign(0.9 * self.average + 0.1 * ops.mean(hidden, axis=0))
        return hidden + 0.0 * ops.sum(self.average) + ops.sum(ops.square(self.average))


def test_no_gradient_flows_through_a_write_of_state():
    """As with a real variable: what is read back after an assignment is a constant."""
    inputs = keras.Input((3,))
    model = compiled(keras.Model(inputs, layers.Dense(2)(MovingAverage()(inputs))))
    x, y = floats(1, 3, seed=1), floats(1, 2, seed=2)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True), None)
    real = tape.gradient(loss, model.trainable_variables)
    model.layers[1].average.assign(ops.zeros(4))
    found = pg.per_sample_gradients(model, x, y, of="own").mean()
    for one, other in zip(found, real, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Auxiliary(keras.Model):
    """A head that only training runs, unbuilt after a plain call."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.extra = layers.Dense(4), layers.Dense(2), layers.Dense(1)

    def call(self, inputs, training=None):
        hidden = self.body(inputs)
        if training:
            self.add_loss(ops.mean(ops.square(self.extra(hidden)), axis=1))
        return self.head(hidden)


def test_a_layer_that_only_training_runs():
    model, x, y = Auxiliary(), floats(4, 3, seed=1), floats(4, 2, seed=2)
    with pytest.warns(UserWarning, match="unbuilt state"):  # Keras', of the very thing
        model(x)
    model.compile("sgd", "mse")
    assert len(pg.per_sample_gradients(model, x, y).variables) == 6
    model.fit(x, y, verbose=0)
    measured = type("Measured", (pg.PerGradMixin, Auxiliary), {})()
    with pytest.warns(UserWarning, match="unbuilt state"):
        measured(x)
    measured.compile("sgd", "mse", per_sample=pg.PerSample(check="always", on_failure="record"))
    measured.fit(x, y, verbose=0)
    assert measured.equivalence_report.oracle.passed


def test_jacobian_wants_samples_on_the_first_axis_of_its_outputs():
    start = keras.Input((3, 2))
    model = keras.Model(start, ops.transpose(layers.Dense(2)(start), (1, 0, 2)))
    model.compile("sgd", lambda y, p: ops.mean(ops.square(ops.transpose(p, (1, 0, 2)) - y)))
    with pytest.raises(pg.UnsupportedError, match="first axis"):
        pg.per_sample_gradients(
            model, floats(5, 3, 2), floats(5, 3, 2), engine="jacobian", of="own"
        ).norms()


def test_jacobian_in_fit_with_a_partial_last_batch_of_sequences():
    start = keras.Input((3, 2))
    model = pg.PerGradModel(start, layers.Dense(2)(layers.Dense(4, "tanh")(start)))
    model.compile("sgd", "mse", per_sample=pg.PerSample("jacobian", check="always"))
    model.fit(floats(7, 3, 2, seed=1), floats(7, 3, 2, seed=2), batch_size=4, verbose=0)
    assert model.equivalence_report.equivalent
