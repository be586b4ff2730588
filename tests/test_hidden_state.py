"""What a model keeps where Keras does not look: on losses, in closures, in dicts, in globals."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats
from tests.samples import each_engine, expect_exact, materialized
from tests.twins import data, expect_close, trained

X, Y = floats(5, 3, seed=1), floats(5, 2, seed=2)


class Annealed(keras.losses.Loss):
    """A squared error that shrinks with a counter of its own, which no model tracks."""

    def __init__(self):
        super().__init__()
        self.count = keras.Variable(0.0, trainable=False)

    def call(self, y_true, y_pred):
        self.count.assign_add(1.0)
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * ops.exp(-0.5 * self.count)


def _dense(functional=None, sequential=keras.Sequential) -> keras.Model:
    return sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])


def test_a_loss_with_a_counter_is_equivalent_and_counts_no_check():
    loss = Annealed()
    model = compiled(_dense(), loss)
    assert pg.check_equivalence(model, X, Y).equivalent
    assert float(loss.count) == 0


@pytest.mark.parametrize("check", ["always", "off"])
def test_a_loss_with_a_counter_trains_as_in_plain_keras(check):
    """Replayed with the counter advanced, every sample's gradient is 40 % too small."""

    def fit(model):
        x, y, _ = data()
        return model.fit(x, y, batch_size=4, shuffle=False, verbose=0)

    ways = [None, pg.PerSample(check=check, aggregator="mean")]
    plain, measured = (
        trained(_dense, way, fit=fit, loss=Annealed(), optimizer=keras.optimizers.SGD(0.1))
        for way in ways
    )
    # float32, four steps: another order of sums.
    expect_close(plain, measured, rtol=1e-5)


def test_a_model_that_the_loss_closes_over_is_left_alone():
    teacher = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()])

    def loss(y_true, y_pred):
        teacher(ops.ones((4, 3)), training=True)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    before = [np.copy(v.numpy()) for v in teacher.variables]
    with pytest.warns(pg.PerGradWarning, match="batch_normalization"):
        assert pg.check_equivalence(compiled(_dense(), loss), X, Y).equivalent
    for variable, value in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


class Keeping(keras.Model):
    """Keeps its hidden tensor somewhere; the loss penalizes its square."""

    def __init__(self, place: str):
        super().__init__()
        self.place, self.kept, self.listed = place, {}, [None]
        self.hidden, self.out = layers.Dense(4), layers.Dense(2)

    def call(self, inputs):
        hidden = self.hidden(inputs)
        if self.place == "attribute":
            self.last = hidden
        elif self.place == "dict":
            self.kept["z"] = hidden
        elif self.place == "list":
            self.listed[0] = hidden
        elif self.place == "tuple":
            self.pair = (inputs, hidden)
        else:
            GLOBAL["z"] = hidden
        return self.out(ops.tanh(hidden))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        places = {
            "attribute": lambda: self.last,
            "dict": lambda: self.kept["z"],
            "list": lambda: self.listed[0],
            "tuple": lambda: self.pair[1],
            "global": lambda: GLOBAL["z"],
        }
        kept = places[self.place]()
        return ops.mean(ops.square(y - y_pred)) + ops.mean(ops.square(kept))


GLOBAL: dict = {}
PLACES = ("attribute", "dict", "list", "tuple", "global")


def _keeping(place: str) -> keras.Model:
    model = Keeping(place)
    model(X)
    return compiled(model, None)


@pytest.mark.thinned(2)
@each_engine
@pytest.mark.parametrize("place", PLACES)
def test_what_call_keeps_is_cut_to_the_sample_or_refused(place, engine):
    """A row whose loss sees all of the batch is no row, though the rows' mean is right."""
    model = _keeping(place)
    if (place, engine) == ("global", "jacobian"):
        with pytest.raises(pg.UnsupportedError, match="neither a prediction nor kept"):
            pg.per_sample_gradients(model, X, Y, engine=engine).norms()
        return
    expected = oracle.own_gradients(model, X, Y)
    expect_exact(materialized(model, X, Y, engine=engine, of="own"), expected)


@pytest.mark.parametrize("size", [3, 5], ids=["as_many_rows_as_samples", "other"])
def test_a_prediction_that_belongs_to_no_sample_is_refused_by_the_jacobian(size):
    start = keras.Input((3,))
    dense = layers.Dense(2)
    model = keras.Model(start, dense(start))

    class WithKernel(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, inputs):
            return {"y": self.inner(inputs), "kernel": dense.kernel * 1.0}

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred["y"])) + ops.mean(y_pred["kernel"] ** 2)

    outer = WithKernel()
    outer(X)
    compiled(outer, None)
    with pytest.raises(pg.UnsupportedError, match="first axis"):
        pg.per_sample_gradients(outer, X[:size], Y[:size], engine="jacobian").norms()


@each_engine
def test_a_second_call_that_replaces_added_losses_is_refused(engine):
    """Keras forgets what the first call added when `compute_loss` calls the model again."""

    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2, activity_regularizer="l2")

        def call(self, inputs):
            return self.dense(inputs)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            apart = ops.mean(ops.square(y_pred - self(x + 0.1)))
            return apart + super().compute_loss(x, y, y_pred, sample_weight)

    model = Twice()
    model(X)
    compiled(model)
    with pytest.raises(pg.UnsupportedError, match="calls layers again"):
        pg.per_sample_gradients(model, X, Y, engine=engine).norms()
    with pytest.raises(pg.UnsupportedError, match="calls layers again"):
        pg.check_equivalence(model, X, Y, engine=engine)
