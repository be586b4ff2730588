"""`compile` takes what Keras takes, and refuses what cannot be measured."""

import inspect

import keras
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests.model_kinds import (
    SETTINGS,
    Subclass,
    fit_once,
    sequential,
)
from tests.twins import dense

# Another value than Keras' default for every argument of `compile`, in Keras' order.
ARGUMENTS = {
    "optimizer": "adam",
    "loss": "mae",
    "loss_weights": [0.5],
    "metrics": ["mse"],
    "weighted_metrics": ["mae"],
    "run_eagerly": True,
    "steps_per_execution": 2,
    "jit_compile": False,
    "auto_scale_loss": False,
}
ATTRIBUTES = ("loss", "run_eagerly", "steps_per_execution", "jit_compile", "compiled")
GIVEN = {"nothing": {}, "all": ARGUMENTS, **{name: {name: ARGUMENTS[name]} for name in ARGUMENTS}}
WAYS = [
    *(pytest.param((), given, id=f"{name}-by_name") for name, given in GIVEN.items()),
    pytest.param(tuple(ARGUMENTS.values()), {}, id="all-by_position"),
]


def _known_after_compile(functional, sequential, *args, **kwargs):
    """What Keras knows of a float16 model, whose losses are scaled by a class of optimizer."""
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy("mixed_float16")
    model = dense(functional, sequential)
    model.compile(*args, **kwargs)
    attributes = {name: getattr(model, name) for name in ATTRIBUTES}
    return model.get_compile_config(), attributes, type(model.optimizer)


@pytest.mark.parametrize("per_sample", [None, SETTINGS], ids=["off", "on"])
@pytest.mark.parametrize(("args", "kwargs"), WAYS)
def test_compile_takes_what_keras_takes(args, kwargs, per_sample):
    """Every argument by name and by position, each by itself, and none."""
    assert list(ARGUMENTS) == list(inspect.signature(keras.Model.compile).parameters)[1:]
    plain = _known_after_compile(keras.Model, keras.Sequential, *args, **kwargs)
    ours = pg.PerGradModel, pg.PerGradSequential
    assert plain == _known_after_compile(*ours, *args, per_sample=per_sample, **kwargs)
    scaled = plain[-1] is keras.optimizers.LossScaleOptimizer
    assert scaled is not ("auto_scale_loss" in kwargs or bool(args))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("per_sample", [None, True, "loop", "jacobian", SETTINGS], ids=str)
def test_per_sample_settings(per_sample):
    model = sequential()
    model.compile("sgd", "mse", per_sample=per_sample)
    fit_once(model)
    assert (model.equivalence_report is None) is (per_sample is None)


def test_recompiling_switches_off():
    model = sequential()
    model.compile("sgd", "mse", per_sample=True)
    fit_once(model)
    model.compile("sgd", "mse")
    fit_once(model)
    assert model.equivalence_report is None
    assert model.per_sample is None


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class CallsSuper(Subclass):
    """A train step that calls ours is no obstacle."""

    def train_step(self, data):
        return super().train_step(data)


def test_a_train_step_that_calls_ours():
    model = CallsSuper()
    model.compile("sgd", "mse", per_sample=True)
    fit_once(model)
    assert model.equivalence_report.equivalent


class Unmeasured(Subclass):
    """A train step of its own that mentions another `train_step`."""

    def train_step(self, data):
        steps = super().compute_metrics
        self.train_step_calls = 1
        return {"loss": ops.zeros(())} if steps else {}


def test_a_train_step_of_ones_own_is_refused():
    with pytest.raises(pg.PerGradError, match="compute_loss"):
        Unmeasured().compile("sgd", "mse", per_sample=True)


@pytest.mark.parametrize("wrong", ["fast", 3, {"engine": "loop"}], ids=str)
def test_settings_that_mean_nothing(wrong):
    with pytest.raises(pg.PerGradError, match="Received"):
        sequential().compile("sgd", "mse", per_sample=wrong)


def test_a_model_without_trainable_weights():
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2, trainable=False)])
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.PerGradError, match="no trainable weights"):
        fit_once(model)
