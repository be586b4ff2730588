"""`PerSample(batch_norm=...)`: what a measured step does with BatchNormalization."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.problems import floats


def built(**settings):
    keras.utils.set_random_seed(0)
    model = pg.PerGradSequential(
        [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    )
    rng = np.random.default_rng(3)
    normalization = model.layers[1]
    normalization.moving_mean.assign(rng.normal(size=4))
    normalization.moving_variance.assign(rng.uniform(0.5, 2, size=4))
    model.compile(
        keras.optimizers.SGD(0.1), "mse", per_sample=pg.PerSample(**settings) if settings else None
    )
    return model


X, Y = floats(12, 5, seed=1), floats(12, 2, seed=2)


def fitted(model, **options):
    model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, **options)
    return [weight.numpy() for weight in model.weights]


def test_share_is_the_default_and_explained():
    with pytest.raises(pg.EquivalenceError) as caught:
        fitted(built(batch_norm="share"))
    assert [each.kind for each in caught.value.report.causes] == ["sample_interaction"]
    assert pg.PerSample().batch_norm == "share"


@pytest.mark.thinned(2)
@pytest.mark.parametrize("aggregator", [None, "mean"])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_frozen_trains_with_the_moving_statistics(aggregator, options):
    """As Keras' own step does with a layer that is called with `training=False`."""

    class ByMoving(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=False, mask=mask)

    model = built(batch_norm="frozen", check="always", aggregator=aggregator)
    model.run_eagerly = bool(options)
    plain = keras.Sequential([keras.Input((5,)), layers.Dense(4), ByMoving(), layers.Dense(2)])
    plain.set_weights(model.get_weights())
    plain.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=bool(options))
    expected = fitted(plain)
    for ours, theirs in zip(fitted(model), expected, strict=True):
        # Bit for bit with Keras' own gradient; the mean of sample gradients sums in another order.
        np.testing.assert_allclose(ours, theirs, rtol=0 if aggregator is None else 1e-5, atol=1e-7)
    assert model.equivalence_report.equivalent


def test_frozen_changes_nothing_but_training():
    """`evaluate`, `predict` and a call by hand are Keras'."""
    model = built(batch_norm="frozen")
    fitted(model)
    training = model(X, training=True)
    plain = built()
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(training, plain(X, training=True))
    assert "call" not in model.layers[1].__dict__


def test_error_refuses_and_names_the_layer():
    with pytest.raises(pg.UnsupportedError, match="Received: batch_norm='error' and 1 such"):
        fitted(built(batch_norm="error"))


def test_error_lets_frozen_layers_pass():
    model = built(batch_norm="error")
    model.layers[1].trainable = False
    fitted(model)
    assert model.equivalence_report.equivalent


def test_an_unknown_policy_is_refused():
    with pytest.raises(pg.PerGradError, match="Received: batch_norm='group'"):
        pg.PerSample(batch_norm="group")


def test_the_policy_is_saved():
    settings = pg.PerSample(batch_norm="frozen")
    assert pg.PerSample.from_config(settings.get_config()) == settings


def test_replace_batch_norm_keeps_what_is_frozen_and_regularized():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="frozen")])
    inner.trainable = False
    bn = keras.layers.BatchNormalization(gamma_regularizer="l2", beta_constraint="non_neg")
    model = keras.Sequential([keras.Input((4,)), inner, bn, keras.layers.Dense(2)])
    copy = pg.replace_batch_norm(model)
    assert len(copy.trainable_variables) == len(model.trainable_variables) == 4
    assert len(copy.losses) == len(model.losses) == 1
    assert copy.layers[1].beta_constraint is not None
