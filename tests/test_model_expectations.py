"""What Keras users expect of a model class: fitting, freezing, nesting, attaching."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.model_kinds import SETTINGS, each_kind, fit_once, functional, sequential
from tests.twins import data, dense, expect_bit_equal, expect_close, noisy, trained


class Own(pg.PerGradMixin, keras.Sequential):
    """A base class of the user's own."""


@pytest.mark.thinned(2)
@each_kind
def test_fit_measures(make):
    model = make()
    model.compile("adam", "mse", per_sample=pg.PerSample(on_failure="record"))
    fit_once(model)
    assert model.equivalence_report.equivalent is (make is not functional)
    assert isinstance(model, keras.Model)
    assert isinstance(model, pg.PerGradModel | pg.PerGradSequential)


def test_a_mixin_on_ones_own_base_class():
    model = Own([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=True)
    fit_once(model)
    assert model.equivalence_report.equivalent


def test_a_layer_frozen_between_fits():
    model = sequential()
    model.compile("sgd", "mse", per_sample=True)
    fit_once(model)
    model.layers[0].trainable = False
    before = model.layers[0].kernel.numpy()
    model.compile("sgd", "mse", per_sample=True)
    fit_once(model)
    np.testing.assert_array_equal(before, model.layers[0].kernel.numpy())
    paths = [row.path for row in model.equivalence_report.rows]
    assert paths == [v.path for v in model.trainable_variables]
    assert len(paths) == 2


def test_nested_models():
    inner = sequential()
    inner.compile("sgd", "mse", per_sample=True)
    outer = pg.PerGradSequential([keras.Input((3,)), inner, layers.Dense(2)])
    outer.compile("sgd", "mse", per_sample=True)
    fit_once(outer)
    assert outer.equivalence_report.equivalent
    assert len(outer.equivalence_report.rows) == 6
    assert inner.equivalence_report is None


def test_summary_prints_weights(capsys):
    model = sequential()
    model.compile("sgd", "mse", per_sample=True)
    lines = []
    model.summary(print_fn=lines.append)
    assert any("26" in line for line in lines)
    x, y, _ = data()
    table = pg.per_sample_gradients(model, x, y).summary()
    assert all(v.path in table for v in model.trainable_variables)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("deterministic")
def test_attached_is_bit_equal_and_detached_is_plain():

    def fit(model):
        if isinstance(model, pg.PerGradMixin):
            raise AssertionError("plain Keras models only")
        return fit_once(model, epochs=2)

    def attached(model):
        with pg.attach(model, SETTINGS) as handle:
            history = fit(model)
        assert handle.equivalence_report is not None
        assert "train_step" not in vars(model)
        return history

    plain = trained(noisy, None, fit=fit, optimizer="adam")
    expect_bit_equal(plain, trained(noisy, None, fit=attached, optimizer="adam"))


@pytest.mark.parametrize(
    "model", [lambda: dense(keras.Model, keras.Sequential), sequential], ids=["plain", "ours"]
)
def test_what_cannot_be_attached(model):
    with pytest.raises(pg.PerGradError, match="compile"):
        pg.attach(model())


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (dense, SETTINGS),
        pytest.param(dense, pg.PerSample(aggregator="mean"), marks=pytest.mark.slow),
        pytest.param(noisy, SETTINGS, marks=pytest.mark.slow),
    ],
    ids=["dense-watched", "dense-mean", "noisy-watched"],
)
def test_training_under_xla(make, settings):
    """XLA fuses two programs differently, so equal to rounding and not bit by bit."""

    def train(per_sample):
        sgd = keras.optimizers.SGD(0.1)
        return trained(make, per_sample, optimizer=sgd, jit_compile=True)

    # float32, eight steps of 0.1.
    expect_close(train(None), train(settings), rtol=1e-5)
