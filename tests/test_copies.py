"""Copies of a model, models side by side, and a fit that was interrupted."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.twins import BATCH, data, dense, expect_bit_equal, trained

slow = pytest.mark.slow
ALWAYS = pg.PerSample(check="always")
# What Keras itself says when it copies through its saving.
copied_by_keras = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@copied_by_keras
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("way", [pytest.param("deepcopy", marks=slow), "pickle"])
def test_a_copy_of_a_compiled_model_is_measured_and_trains_alike(way):
    x, y, _ = data()
    model, _ = trained(dense, ALWAYS, optimizer="adam")
    other = COPIES[way](model)
    assert type(other) is type(model) and other.per_sample == ALWAYS
    assert other.equivalence_report is None
    for each in (model, other):
        each.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert other.equivalence_report.equivalent and other is not model
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@copied_by_keras
@pytest.mark.parametrize("way", ["deepcopy", pytest.param("pickle", marks=slow)])
def test_a_copy_of_an_attached_model_is_plain_and_the_original_stays_measured(way):
    x, y, _ = data()
    model, _ = trained(dense, None, optimizer="adam")
    with pg.attach(model, ALWAYS) as attached:
        other = COPIES[way](model)
        other.fit(x, y, verbose=0)
        assert attached.equivalence_report is None
        pg.attach(other)  # it is not attached
        model.fit(x, y, verbose=0)
        assert attached.equivalence_report.equivalent


def _unbuilt(functional: type, sequential: type) -> keras.Model:
    class CallStyle(functional):
        def __init__(self):
            super().__init__()
            self.first, self.drop = layers.Dense(4, "tanh"), layers.Dropout(0.3)
            self.second = layers.Dense(2)

        def call(self, inputs, training=False):
            return self.second(self.drop(self.first(inputs), training=training))

    model = CallStyle()
    assert not model.built
    return model


@pytest.mark.usefixtures("deterministic")
def test_a_model_that_fit_has_to_build():
    plain, measured = trained(_unbuilt, None), trained(_unbuilt, ALWAYS)
    expect_bit_equal(plain, measured)
    report = measured[0].equivalence_report
    assert report.equivalent and len(report.rows) == 4


@pytest.mark.usefixtures("deterministic")
def test_two_models_trained_in_turns_do_not_mix():
    """Each is bit-equal to plain Keras, trained alone one after the other."""
    x, y, _ = data()

    def pair(functional, sequential, **options):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        models = [make(functional, sequential) for make in (_unbuilt, dense)]
        for model in models:
            model.compile("adam", "mse", **options)
        return models

    plain = pair(keras.Model, keras.Sequential)
    for model in plain:
        for k in range(3):
            model.train_on_batch(x[k * 4 : k * 4 + 4], y[k * 4 : k * 4 + 4])
    measured = pair(pg.PerGradModel, pg.PerGradSequential, per_sample=ALWAYS)
    for k in range(3):
        for model in measured:
            model.train_on_batch(x[k * 4 : k * 4 + 4], y[k * 4 : k * 4 + 4])
    for one, other in zip(plain, measured, strict=True):
        expect_bit_equal((one, {}), (other, {}))
        report = other.equivalence_report
        assert report.equivalent
        assert [row.path for row in report.rows] == [v.path for v in other.trainable_variables]


@pytest.mark.usefixtures("deterministic")
def test_an_interrupted_fit_can_be_taken_up_again():
    def fit(model):
        def interrupt(batch, logs):
            if batch == 1:
                raise KeyboardInterrupt

        x, y, _ = data()
        with pytest.raises(KeyboardInterrupt):
            callback = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
            model.fit(x, y, batch_size=BATCH, shuffle=False, callbacks=[callback], verbose=0)
        assert int(model.optimizer.iterations) == 2
        return model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)

    plain = trained(dense, None, fit=fit, optimizer="adam")
    measured = trained(dense, ALWAYS, fit=fit, optimizer="adam")
    expect_bit_equal(plain, measured)
    assert measured[0].equivalence_report.equivalent
