"""Where a factor between the batch and its samples comes from."""

import keras
import pytest
from keras import layers, ops

import keras_pergrad as pg
from tests.broken import BROKEN
from tests.broken.base import numbers
from tests.cases import nudge
from tests.problems import compiled


@pytest.mark.parametrize(
    "name, said",
    [
        ("sum by hand", "12 times the mean of the samples', the number of samples"),
        ("divided twice", "1/12 times the mean of the samples', one over the number of samples"),
        ("the loss scale by hand", "64 times the mean of the samples', the loss scale of the opt"),
        ("accumulation by hand", "1/4 times the mean of the samples', one over the accumulation"),
    ],
)
def test_the_number_tells_where_it_comes_from(name, said):
    model = BROKEN[name].build()
    nudge(model)
    [cause] = pg.check_equivalence(model, *numbers(5)()).causes
    assert (cause.kind, cause.where) == ("loss_scale", "compute_loss")
    assert said in cause.because
    assert cause.explains == pytest.approx(1.0, abs=1e-3)


class Always(keras.Model):
    """Takes the optimizer's number into its loss, whatever the batch."""

    def __init__(self, number):
        super().__init__()
        self.dense, self.number = layers.Dense(2), number

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y - y_pred) ** 2) * self.number(self.optimizer)


@pytest.mark.parametrize(
    "number, make",
    [
        (
            lambda optimizer: optimizer.dynamic_scale,
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        ),
        (
            lambda optimizer: 1 / optimizer.gradient_accumulation_steps,
            lambda: keras.optimizers.SGD(gradient_accumulation_steps=4),
        ),
        (lambda optimizer: 1.0, lambda: keras.optimizers.SGD(loss_scale_factor=128.0)),
    ],
)
def test_a_factor_that_is_always_there_is_no_difference(number, make):
    model = compiled(Always(number), None)
    model(numbers(5)()[0])
    model.compile(make(), auto_scale_loss=False)
    model.optimizer.build(model.trainable_variables)
    report = pg.check_equivalence(model, *numbers(5)())
    assert report.equivalent and report.causes == []
