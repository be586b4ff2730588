"""What Keras users expect of a model class: compile, saving, cloning, freezing, attaching."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.twins import data, dense, expect_bit_equal, expect_close, noisy, trained

# Keras writes files through numpy's old `__array__` protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SETTINGS = pg.PerSample(engine="vectorized", check=3, on_failure="record")


def _functional() -> keras.Model:
    return noisy(pg.PerGradModel, pg.PerGradSequential)


def _normalized() -> keras.Model:
    start = keras.Input((3,))
    hidden = layers.BatchNormalization()(layers.Dense(4, "tanh")(start))
    return pg.PerGradModel(start, layers.Dense(2)(hidden))


def _sequential() -> keras.Model:
    return dense(pg.PerGradModel, pg.PerGradSequential)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Subclass(pg.PerGradModel):
    """With a `call`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = layers.Dense(4, "tanh"), layers.Dense(2)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 4))

    def call(self, inputs):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Backbone(pg.PerGradModel):
    """Functional style."""

    def __init__(self, width=4, **options):
        start = keras.Input((3,))
        super().__init__(start, layers.Dense(2)(layers.Dense(width)(start)), **options)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


class Own(pg.PerGradMixin, keras.Sequential):
    """A base class of the user's own."""


KINDS = {
    "functional": _functional,
    "sequential": _sequential,
    "subclass": Subclass,
    "backbone": Backbone,
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))


def _fit(model, epochs=1):
    x, y, _ = data()
    return model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)


@each_kind
def test_fit_measures(make):
    """Rows 1 to 4."""
    model = make()
    model.compile("adam", "mse", per_sample=pg.PerSample(on_failure="record"))
    _fit(model)
    assert model.equivalence_report.equivalent is (make is not _functional)
    assert isinstance(model, keras.Model)
    assert isinstance(model, pg.PerGradModel | pg.PerGradSequential)


def test_a_mixin_on_ones_own_base_class():
    model = Own([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=True)
    _fit(model)
    assert model.equivalence_report.equivalent


@pytest.mark.parametrize("make", [_normalized, _sequential, Subclass, Backbone])
def test_save_and_load(make, tmp_path):
    """Row 6: type, weights, settings, optimizer step; and training goes on to the same weights.

    Without noise: Keras does not restore the seeds of its layers.
    """
    model = make()
    model.compile("adam", "mse", metrics=["mae"], per_sample=SETTINGS)
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.per_sample == SETTINGS
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    _fit(model)
    _fit(loaded)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@each_kind
def test_the_config_is_json_without_settings(make):
    """Row 7. Keras itself puts a compiled model's settings into a Sequential's config."""
    model = make()
    assert "PerSample" not in json.dumps(model.get_config())
    model.compile("adam", "mse", per_sample=SETTINGS)
    json.dumps(model.get_config())
    again = type(model).from_config(model.get_config())
    model(data()[0])
    again(data()[0])
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_a_functional_model_is_cloned_as_what_it_is():
    """Row 8."""
    model = _functional()
    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    clone.compile("sgd", "mse", per_sample=pg.PerSample(on_failure="record"))
    _fit(clone)
    assert clone.equivalence_report is not None


def test_a_sequential_is_cloned_as_a_plain_one_that_can_be_attached():
    """Keras clones any subclass of Sequential into `keras.Sequential`."""
    clone = keras.models.clone_model(_sequential())
    clone.compile("sgd", "mse")
    with pg.attach(clone) as handle:
        _fit(clone)
    assert handle.equivalence_report.equivalent


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
    """Row 9: every argument by name and by position, each by itself, and none."""
    assert list(ARGUMENTS) == list(inspect.signature(keras.Model.compile).parameters)[1:]
    plain = _known_after_compile(keras.Model, keras.Sequential, *args, **kwargs)
    ours = pg.PerGradModel, pg.PerGradSequential
    assert plain == _known_after_compile(*ours, *args, per_sample=per_sample, **kwargs)
    scaled = plain[-1] is keras.optimizers.LossScaleOptimizer
    assert scaled is not ("auto_scale_loss" in kwargs or bool(args))


@pytest.mark.parametrize("per_sample", [None, True, "loop", "jacobian", SETTINGS], ids=str)
def test_per_sample_settings(per_sample):
    model = _sequential()
    model.compile("sgd", "mse", per_sample=per_sample)
    _fit(model)
    assert (model.equivalence_report is None) is (per_sample is None)


def test_recompiling_switches_off():
    model = _sequential()
    model.compile("sgd", "mse", per_sample=True)
    _fit(model)
    model.compile("sgd", "mse")
    _fit(model)
    assert model.equivalence_report is None
    assert model.per_sample is None


def test_a_layer_frozen_between_fits():
    """Row 25."""
    model = _sequential()
    model.compile("sgd", "mse", per_sample=True)
    _fit(model)
    model.layers[0].trainable = False
    before = model.layers[0].kernel.numpy()
    model.compile("sgd", "mse", per_sample=True)
    _fit(model)
    np.testing.assert_array_equal(before, model.layers[0].kernel.numpy())
    paths = [row.path for row in model.equivalence_report.rows]
    assert paths == [v.path for v in model.trainable_variables]
    assert len(paths) == 2


def test_nested_models():
    inner = _sequential()
    inner.compile("sgd", "mse", per_sample=True)
    outer = pg.PerGradSequential([keras.Input((3,)), inner, layers.Dense(2)])
    outer.compile("sgd", "mse", per_sample=True)
    _fit(outer)
    assert outer.equivalence_report.equivalent
    assert len(outer.equivalence_report.rows) == 6
    assert inner.equivalence_report is None


def test_summary_prints_weights(capsys):
    """Row 24."""
    model = _sequential()
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
    """Row 5."""

    def fit(model):
        if isinstance(model, pg.PerGradMixin):
            raise AssertionError("plain Keras models only")
        return _fit(model, epochs=2)

    def attached(model):
        with pg.attach(model, SETTINGS) as handle:
            history = fit(model)
        assert handle.equivalence_report is not None
        assert "train_step" not in vars(model)
        return history

    plain = trained(noisy, None, fit=fit, optimizer="adam")
    expect_bit_equal(plain, trained(noisy, None, fit=attached, optimizer="adam"))


def test_an_attached_model_saves_as_the_plain_one(tmp_path):
    model = dense(keras.Model, keras.Sequential)
    model.compile("adam", "mse")
    pg.attach(model)
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is keras.Sequential
    assert not hasattr(loaded, "per_sample")
    with pytest.raises(pg.PerGradError, match="already"):
        pg.attach(model)
    pg.detach(model)
    pg.detach(model)
    _fit(model)


@pytest.mark.parametrize(
    "model", [lambda: dense(keras.Model, keras.Sequential), _sequential], ids=["plain", "ours"]
)
def test_what_cannot_be_attached(model):
    with pytest.raises(pg.PerGradError, match="compile"):
        pg.attach(model())


def test_export(tmp_path):
    model = _sequential()
    model.compile("adam", "mse", per_sample=True)
    _fit(model)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    # float32, two layers: a function of its own may fuse them differently.
    np.testing.assert_allclose(
        served.serve(data()[0]), model.predict(data()[0], verbose=0), rtol=1e-5, atol=1e-6
    )


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class CallsSuper(Subclass):
    """A train step that calls ours is no obstacle."""

    def train_step(self, data):
        return super().train_step(data)


def test_a_train_step_that_calls_ours():
    model = CallsSuper()
    model.compile("sgd", "mse", per_sample=True)
    _fit(model)
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
        _sequential().compile("sgd", "mse", per_sample=wrong)


def test_a_model_without_trainable_weights():
    """Row 30."""
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2, trainable=False)])
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.PerGradError, match="no trainable weights"):
        _fit(model)


@pytest.mark.parametrize("settings", [SETTINGS, pg.PerSample(aggregator="mean")], ids=str)
def test_training_under_xla(settings):
    """Row 12. XLA fuses two programs differently, so equal to rounding and not bit by bit."""
    options = {"optimizer": keras.optimizers.SGD(0.1), "jit_compile": True}
    plain = trained(dense, None, **options)
    options = {"optimizer": keras.optimizers.SGD(0.1), "jit_compile": True}
    # float32, eight steps of 0.1.
    expect_close(plain, trained(dense, settings, **options), rtol=1e-5)
