"""Models are saved, loaded, cloned, exported and described as Keras does it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_pergrad as pg
from tests.model_kinds import (
    SETTINGS,
    Backbone,
    Subclass,
    each_kind,
    fit_once,
    functional,
    normalized,
    sequential,
)
from tests.twins import data, dense

# Keras writes files through numpy's old `__array__` protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "make",
    [
        normalized,
        Subclass,
        *(pytest.param(m, marks=pytest.mark.slow) for m in (sequential, Backbone)),
    ],
)
def test_save_and_load(make, tmp_path):
    """Type, weights, settings, optimizer step; and training goes on to the same weights.

    Without noise: Keras does not restore the seeds of its layers.
    """
    model = make()
    model.compile("adam", "mse", metrics=["mae"], per_sample=SETTINGS)
    fit_once(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.per_sample == SETTINGS
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    fit_once(model)
    fit_once(loaded)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@each_kind
def test_the_config_is_json_without_settings(make):
    """Keras itself puts a compiled model's settings into a Sequential's config."""
    model = make()
    assert "PerSample" not in json.dumps(model.get_config())
    model.compile("adam", "mse", per_sample=SETTINGS)
    json.dumps(model.get_config())
    again = type(model).from_config(model.get_config())
    model(data()[0])
    again(data()[0])
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_a_functional_model_is_cloned_as_what_it_is():
    model = functional()
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    clone.compile("sgd", "mse", per_sample=pg.PerSample(on_failure="record"))
    fit_once(clone)
    assert clone.equivalence_report is not None


def test_a_sequential_is_cloned_as_a_plain_one_that_can_be_attached():
    """Keras clones any subclass of Sequential into `keras.Sequential`."""
    clone = keras.models.clone_model(sequential())
    clone.compile("sgd", "mse")
    with pg.attach(clone) as handle:
        fit_once(clone)
    assert handle.equivalence_report.equivalent


def test_an_attached_model_saves_as_the_plain_one(tmp_path):
    model = dense(keras.Model, keras.Sequential)
    model.compile("adam", "mse")
    pg.attach(model)
    fit_once(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras.Sequential
    assert not hasattr(loaded, "per_sample")
    with pytest.raises(pg.PerGradError, match="already"):
        pg.attach(model)
    pg.detach(model)
    pg.detach(model)
    fit_once(model)


def test_export(tmp_path):
    model = sequential()
    model.compile("adam", "mse", per_sample=True)
    fit_once(model)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    # float32, two layers: a function of its own may fuse them differently.
    np.testing.assert_allclose(
        served.serve(data()[0]), model.predict(data()[0], verbose=0), rtol=1e-5, atol=1e-6
    )
