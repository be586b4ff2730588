"""What `call` leaves on layers and helpers: read by the loss, a sample's own, and put back."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats

ISOLATED = ("loop", "vectorized")


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


@pytest.mark.parametrize("engine", ("loop", "vectorized", "jacobian"))
def test_rows_of_what_the_forward_pass_kept_are_the_samples_own(engine):
    model, x = KeepsItsCode(), floats(4, 3, seed=1)
    model(x)
    model.compile("sgd")
    found = pg.per_sample_gradients(model, x, engine=engine, of="own").materialize()
    expected = pg.per_sample_gradients(model, x, engine="loop", of="own").materialize()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6)


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
