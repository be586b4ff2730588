"""What a monitor refuses, and what it says once and goes on with."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.monitored import Monitor, in_order, watched
from tests.twins import data, dense


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("name", ["every", "top_k"])
def test_numbers(name, number):
    with pytest.raises(pg.PerGradError, match=rf"`{name}` is a whole number.*Received"):
        Monitor(**{name: number})


def test_a_level_and_a_scalar_that_do_not_exist():
    with pytest.raises(pg.PerGradError, match="Did you mean 'standard'"):
        Monitor("standart")
    with pytest.raises(pg.PerGradError, match="Received: level=3"):
        Monitor(3)
    with pytest.raises(pg.PerGradError, match=r"Did you mean .*'grad_noise_scale'"):
        Monitor(scalars="grad_noise_scal")
    with pytest.raises(pg.PerGradError, match="Received: 'grad_cosine'"):
        Monitor("norms", scalars=["grad_norm_max", "grad_cosine"])  # of a higher level


def test_an_own_train_step():
    class Own(keras.Sequential):
        def train_step(self, data):
            return {}

    model = Own([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(pg.TrainStepError, match="train_step"):
        in_order(model, [Monitor()])
    assert "_per_grad" not in vars(model)


def _said(act):
    """Our warnings while `act()` runs, and its answer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = act()
    ours = [each for each in caught if issubclass(each.category, pg.PerGradWarning)]
    return [str(each.message) for each in ours], found


def _fit(x, y, size):
    options = {"batch_size": size, "epochs": 2, "shuffle": False, "verbose": 0}
    return lambda model, callbacks: model.fit(x, y, callbacks=callbacks, **options)


def test_a_batch_of_one_is_said_once():
    x, y, _ = data()
    said, (_, monitor, history) = _said(lambda: watched(fit=_fit(x[:5], y[:5], 4)))
    assert len(said) == 1 and "A batch of one" in said[0] and "step 1" in said[0]
    record = monitor.records[1]
    assert record.size == 1
    unknown = ("grad_noise_scale", "grad_snr", "norm_test", "inner_test", "grad_pairwise_cosine")
    for name in (*unknown, "grad_confusion", "grad_gsnr", "grad_coherence_debiased"):
        assert np.isnan(record.values[name]), name
    assert record.values["grad_concentration"] == pytest.approx(1)
    # The other step's alone.
    expected = monitor.records[0].values["grad_coherence"]
    assert history["grad_coherence"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", ["norms", "full"])
def test_a_sample_with_nan_is_named_and_is_not_the_others(level):
    """SGD of rate 0 would still write NaN into the weights: one epoch, one step."""
    x, y, _ = data()
    x[5] = np.nan

    def fit(model, callbacks):
        options = {"batch_size": 7, "verbose": 0, "shuffle": False, "steps_per_epoch": 1}
        return model.fit(**pg.with_ids(x[:7], y[:7]), callbacks=callbacks, **options)

    said, (_, monitor, history) = _said(lambda: watched(fit=fit, monitor=Monitor(level, 1)))
    (record,) = monitor.records
    assert record.non_finite == [5] and record.size == 7
    assert len(said) == 1 and "[5]" in said[0]
    assert {row.id for row in monitor.outliers()} == {0, 1, 2, 3, 4, 6}
    _, clean, _ = watched(fit=_fit(np.delete(x[:7], 5, 0), np.delete(y[:7], 5, 0), 6), level=level)
    for name in ("grad_norm_mean", "grad_norm_max", "grad_concentration"):
        expected = clean.records[0].values[name]
        assert record.values[name] == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(history.get(name, [0.0])).all()
    assert np.isnan(record.values["grad_noise_scale"])


def test_a_file_that_cannot_be_written_is_said_once_and_training_goes_on(tmp_path):
    monitor = Monitor(every=1, jsonl=tmp_path)  # a directory
    said, (_, _, history) = _said(lambda: watched(monitor=monitor))
    assert len(said) == 1 and "cannot be written" in said[0]
    assert len(monitor.records) == 8 and np.isfinite(history["loss"]).all()


def test_no_gradient_at_all():
    """Weights of zero: counted, nothing stands out, no number is infinite."""
    x, y, _ = data()

    def fit(model, callbacks):
        options = {"batch_size": 14, "verbose": 0, "sample_weight": np.zeros(14, "float32")}
        return model.fit(x, y, callbacks=callbacks, **options)

    _, monitor, _ = watched(fit=fit)
    (record,) = monitor.records
    assert record.zero == 14 and not monitor.outliers() and not record.non_finite
    assert not any(np.isinf(value) for value in record.values.values())
    assert np.isnan(record.values["grad_noise_scale"])


def test_a_model_without_a_loss_is_refused_as_by_keras():
    model = dense(keras.Model, keras.Sequential)
    with pytest.raises(ValueError, match="compile"):
        in_order(model, [Monitor()])
    assert "_per_grad" not in vars(model)
