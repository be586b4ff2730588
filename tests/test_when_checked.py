"""Steps that cannot be judged: loss scaling skips them, or they have no samples."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.problems import floats
from tests.twins import dense


def _in_float16(check) -> keras.Model:
    keras.config.set_dtype_policy("mixed_float16")
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    settings = pg.PerSample(check=check)
    model.compile(keras.optimizers.SGD(0.01), "mse", per_sample=settings)
    return model


def test_the_first_check_waits_for_a_step_that_loss_scaling_does_not_skip():
    model, x, y = _in_float16("first"), floats(4, 3, seed=1), floats(4, 2, seed=2)
    # Loss and targets are float32, but the gradient of the outputs is beyond float16.
    model.train_on_batch(x, 1e6 * y)
    model.train_on_batch(x, 1e6 * y)
    assert model.equivalence_report is None
    model.train_on_batch(x, y)
    report = model.equivalence_report
    assert report.step == 2 and report.equivalent
    model.train_on_batch(x, y)
    assert model.equivalence_report is report


@pytest.mark.parametrize("check", ["first", "always"])
def test_a_sample_with_nan_is_named_in_float16_too(check):
    """Loss scaling would skip such a step for ever, and nobody would know why."""
    model, x, y = _in_float16(check), floats(8, 3, seed=1), floats(8, 2, seed=2)
    x[5] = np.nan
    with pytest.raises(pg.EquivalenceError, match="sample 5") as caught:
        model.train_on_batch(x, y)
    assert caught.value.report.non_finite_indices == [5]


def test_the_first_check_waits_for_a_batch_with_samples():
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="first"))

    def batches():
        for size in (0, 4, 4):
            yield floats(size, 3), floats(size, 2)

    spec = tf.TensorSpec((None, 3)), tf.TensorSpec((None, 2))
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model.fit(data, steps_per_epoch=3, shuffle=False, verbose=0)
    assert model.equivalence_report.step == 1 and model.equivalence_report.equivalent


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (keras.losses.MeanSquaredError("sum"), "do add up to the batch gradient of 4 samples"),
        (lambda y, y_pred: keras.ops.sum((y - y_pred) ** 2), "`check_equivalence` on such a batch"),
    ],
    ids=["weights are known", "only engines know"],
)
def test_a_failed_check_in_fit_tells_of_contributions_or_points_on(loss, told):
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    settings = pg.PerSample(check="first", on_failure="record")
    model.compile("sgd", loss, per_sample=settings)
    model.train_on_batch(floats(4, 3), floats(4, 2))
    assert told in str(model.equivalence_report.contributions)


def test_the_first_check_waits_for_a_gradient():
    """Of zeros everything is true, and whatever ties samples together has no effect."""
    stack = [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    model = pg.PerGradSequential(stack)
    settings = pg.PerSample(on_failure="record")
    model.compile("sgd", "mse", per_sample=settings)
    x, y = floats(8, 3, seed=1), floats(8, 2, seed=2)
    model.train_on_batch(x, y, sample_weight=np.zeros(8, "float32"))
    assert not model.equivalence_report.coupling.passed
    model.train_on_batch(x, y)
    report = model.equivalence_report
    assert report.step == 1 and not report.equivalent
    json.dumps(report.to_dict())
