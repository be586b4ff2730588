"""A check in `fit` sees every step that trains, and no other."""

import keras
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests.problems import floats


def test_a_model_that_trains_another_number_of_weights_is_watched_anew():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = floats(8, 3), floats(8, 2)
    with pg.attach(model, pg.PerSample(check="always")) as attached:
        model.fit(x, y, verbose=0)
        assert len(attached.equivalence_report.rows) == 4
        model.layers[0].trainable = False
        model.compile("sgd", "mse")
        model.fit(x, y, verbose=0)
        assert len(attached.equivalence_report.rows) == 2


def test_a_check_inside_a_function_says_where_it_belongs():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(pg.PerGradError, match=r"inside a tf\.function"):
        tf.function(pg.check_equivalence)(model, tf.ones((4, 3)), tf.ones((4, 2)))


class PassesOn(keras.Sequential):
    """A step of its own that ends in Keras' step."""

    def train_step(self, data):
        return super().train_step(data)


def test_own_steps_are_refused_wherever_they_are():
    class Mixed(pg.PerGradMixin, PassesOn):
        pass

    stack = [keras.Input((3,)), layers.Dense(2)]
    with pytest.raises(pg.TrainStepError):
        Mixed(stack).compile("sgd", "mse", per_sample=True)
    model = PassesOn(stack)
    model.compile("sgd", "mse")
    with pytest.raises(pg.TrainStepError):
        pg.attach(model)
    model = pg.PerGradSequential(stack)
    model.train_step = lambda data: {}
    with pytest.raises(pg.TrainStepError, match="itself"):
        model.compile("sgd", "mse", per_sample=True)

    class Above(pg.PerGradSequential):
        def train_step(self, data):
            return super().train_step(data)

    model = Above(stack)
    model.compile("sgd", "mse", per_sample=True)
    model.fit(floats(4, 3), floats(4, 2), verbose=0)
    assert model.equivalence_report.equivalent


def test_a_failed_report_has_its_causes_also_when_it_was_raised():
    stack = [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    model = pg.PerGradSequential(stack)
    model.compile("sgd", "mse", per_sample=True)
    with pytest.raises(pg.EquivalenceError) as caught:
        model.fit(floats(4, 3, seed=1), floats(4, 2, seed=2), verbose=0)
    assert model.equivalence_report is caught.value.report
    assert [cause.kind for cause in caught.value.report.causes] == ["sample_interaction"]


def test_a_batch_without_rows_in_fit_is_passed_over():
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(check="always"))
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 2)))

    def batches():
        for size in (4, 0, 3):
            yield floats(size, 3), floats(size, 2)

    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    with pytest.warns(UserWarning, match="ran out of data"):  # Keras', for a data set without size
        model.fit(data, shuffle=False, verbose=0)
    assert model.equivalence_report.num_samples in (3, 4)


def test_jacobian_in_fit_with_a_partial_last_batch_of_sequences():
    start = keras.Input((3, 2))
    model = pg.PerGradModel(start, layers.Dense(2)(layers.Dense(4, "tanh")(start)))
    model.compile("sgd", "mse", per_sample=pg.PerSample("jacobian", check="always"))
    model.fit(floats(7, 3, 2, seed=1), floats(7, 3, 2, seed=2), batch_size=4, verbose=0)
    assert model.equivalence_report.equivalent
