"""Models that cannot be used, and settings that do not exist: one clear sentence."""

import keras
import pytest
from keras import layers

import keras_pergrad as pg
from tests.problems import compiled, floats


def _dense(loss="mse") -> keras.Model:
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)


def _not_compiled() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), layers.Dense(2)])


def _frozen() -> keras.Model:
    model = _dense()
    model.layers[0].trainable = False
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_not_compiled, "compile"),
        (lambda: compiled(keras.Sequential([layers.Dense(2)])), "build|model\\(x\\)"),
        (_frozen, "no trainable"),
        (lambda: layers.Dense(2), "keras.Model"),
    ],
    ids=["not_compiled", "unbuilt", "frozen", "a_layer"],
)
def test_models_that_cannot_be_used(model, words):
    with pytest.raises(pg.PerGradError, match=words):
        pg.per_sample_gradients(model(), floats(4, 3), floats(4, 2))


@pytest.mark.parametrize("options", [{"engine": "fast"}, {"of": "mine"}, {"engine": None}], ids=str)
def test_settings_that_do_not_exist(options):
    with pytest.raises(pg.PerGradError, match="Received"):
        pg.per_sample_gradients(_dense(), floats(4, 3), floats(4, 2), **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "fast"},
        {"check": "sometimes"},
        {"check": -1},
        {"on_failure": "shout"},
        {"aggregator": "median"},
        {"memory_budget": 0},
    ],
    ids=str,
)
def test_settings_of_compile_that_do_not_exist(settings):
    with pytest.raises(pg.PerGradError, match="Received"):
        pg.PerSample(**settings)
