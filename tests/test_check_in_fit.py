"""A planted wrong gradient raises on the host in every way Keras can run a training step."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.backend.common.stateless_scope import in_stateless_scope

import keras_pergrad as pg
from tests import planted
from tests.problems import floats

WAYS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "xla_steps_per_execution": {"jit_compile": True, "steps_per_execution": 2},
}
FAULTS = {
    "factor_on_one_variable": planted.Planted(planted.scaled(1.01)),
    "bias_dropped": planted.Planted(planted.dropped(1)),
    "zero_sum_noise": planted.Planted(planted.zero_sum_noise),
    "samples_swapped": planted.Swapped(),
}
each_way = pytest.mark.parametrize(
    "way",
    [  # XLA takes half a minute to compile the check.
        pytest.param(way, id=name, marks=pytest.mark.slow if "xla" in name else ())
        for name, way in WAYS.items()
    ],
)


def _model() -> keras.Model:
    return pg.PerGradSequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])


def _fit(model, epochs=1, batch_size=4):
    x, y = floats(16, 3, seed=1), floats(16, 2, seed=2)
    return model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)


def _settings(change, **options):
    return pg.PerSample(engine=planted.Planted(change), **options)


def _default(fault: str, way: str) -> bool:
    """Every fault in a graph, and one fault in every way; the rest takes minutes."""
    return way == "graph" or (fault == "samples_swapped" and way != "xla_steps_per_execution")


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("fault", "way"),
    [
        pytest.param(fault, way, marks=() if _default(fault, way) else pytest.mark.slow)
        for way in WAYS
        for fault in FAULTS
    ],
)
def test_a_wrong_gradient_raises(fault, way):
    fault, way = FAULTS[fault], WAYS[way]
    model = _model()
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine=fault), **way)
    with pytest.raises(pg.EquivalenceError) as caught:
        _fit(model)
    report = caught.value.report
    assert not report.equivalent
    assert [row.path for row in report.rows] == [v.path for v in model.trainable_variables]
    json.dumps(report.to_dict())
    assert str(report) in str(caught.value)


@pytest.mark.thinned(3)
@each_way
@pytest.mark.parametrize(
    "engine",
    ["vectorized", *(pytest.param(e, marks=pytest.mark.slow) for e in ("jacobian", "loop"))],
)
def test_the_right_gradient_passes(engine, way):
    chain = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dropout(0.3), layers.Dense(2)]
    model = pg.PerGradSequential(chain)
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine=engine, check="always"), **way)
    _fit(model, epochs=2)
    assert model.equivalence_report.equivalent
    assert model.equivalence_report.max_relative_error < 1e-5


def _wrong_where_huge(gradients, indices):
    """Doubled in a batch of huge inputs only."""
    huge = tf.reduce_max(tf.abs(gradients[0])) > 10.0
    return [g * tf.where(huge, 2.0, 1.0) for g in gradients]


@pytest.mark.thinned(3)
@each_way
def test_the_report_is_that_of_the_worst_step(way):
    """The third of four steps is wrong; it must not be lost in one execution of four."""
    x, y = floats(16, 3, seed=1), floats(16, 2, seed=2)
    x[8:12] = 100.0
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    settings = _settings(_wrong_where_huge, check="always")
    model.compile(keras.optimizers.SGD(1e-6), "mse", per_sample=settings, **way)
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert caught.value.report.step == 2


@pytest.mark.thinned(3)
@each_way
def test_warn_and_record(way):
    model = _model()
    model.compile("sgd", "mse", per_sample=_settings(planted.scaled(2.0), on_failure="warn"), **way)
    with pytest.warns(pg.EquivalenceWarning):
        _fit(model)
    recorded = _settings(planted.scaled(2.0), on_failure="record")
    model.compile("sgd", "mse", per_sample=recorded, **way)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _fit(model)
    assert not model.equivalence_report.equivalent


def test_first_checks_only_the_first_step():
    """A fault that begins later is not seen by "first", and is by "always" and by every 2."""
    for check, seen in (("first", False), ("always", True), (2, True), ("off", False)):
        model = _model()
        step = {"n": 0}
        model.compile(
            "sgd",
            "mse",
            run_eagerly=True,
            per_sample=_settings(_from_step(2, step), check=check, on_failure="record"),
        )
        step["model"] = model
        _fit(model)
        report = model.equivalence_report
        assert (report is not None and not report.equivalent) is seen, check


def _from_step(first, where):
    """Doubles gradients from optimizer step `first` on; reads the step eagerly."""

    def change(gradients, indices):
        late = int(where["model"].optimizer.iterations) >= first
        return [g * (2.0 if late else 1.0) for g in gradients]

    return change


def test_batch_normalization_is_named_as_the_cause():
    start = keras.Input((3,))
    hidden = layers.BatchNormalization(name="norm")(layers.Dense(4)(start))
    model = pg.PerGradModel(start, layers.Dense(2)(hidden))
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.EquivalenceError) as caught:
        _fit(model)
    causes = caught.value.report.causes
    assert any("norm" in cause.where for cause in causes)
    assert all(cause.because and cause.remedy for cause in causes)


def test_a_failed_fit_leaves_the_model_usable():
    model = _model()
    model.compile("sgd", "mse", per_sample=_settings(planted.scaled(2.0)))
    with pytest.raises(pg.EquivalenceError):
        _fit(model)
    model.compile("sgd", "mse", per_sample=True)
    assert np.isfinite(_fit(model).history["loss"][-1])
    assert model.equivalence_report.equivalent


def test_nan_in_one_sample_names_it():
    model = _model()
    model.compile("sgd", "mse", per_sample=True)
    x, y = floats(8, 3, seed=1), floats(8, 2, seed=2)
    x[5] = np.nan
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert caught.value.report.non_finite_indices == [5]


def test_a_step_that_runs_differently_again_is_no_proof():
    """All that is run after the step agrees, and nothing of it is what training did."""

    class OtherwiseAgain(layers.Layer):
        def call(self, inputs):
            return inputs * (1.0 if in_stateless_scope() else 2.0)

    model = pg.PerGradSequential([keras.Input((3,)), OtherwiseAgain(), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine="loop"))
    with pytest.raises(pg.EquivalenceError) as caught:
        _fit(model)
    report = caught.value.report
    assert report.mean.passed and report.oracle.passed and not report.coupling.passed
    assert "predicts something else" in str(report)
