"""Every form that `fit` takes data in: trained with measuring as by plain Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests.problems import floats
from tests.twins import (
    BATCH,
    ROWS,
    data,
    dense,
    expect_bit_equal,
    trained,
)

RECORD = pg.PerSample(check="always", on_failure="record")
pytestmark = pytest.mark.usefixtures("deterministic")


class Sequence(keras.utils.PyDataset):
    """The rows in batches."""

    def __len__(self):
        return -(-ROWS // BATCH)

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return tuple(part[rows] for part in data())


def _generator():
    while True:
        yield from (Sequence()[k] for k in range(len(Sequence())))


def _dataset(repeat=False):
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
    return dataset.repeat() if repeat else dataset


FORMS = {
    "arrays": lambda m: m.fit(*data()[:2], sample_weight=data()[2], batch_size=4, shuffle=False),
    "tf_data": lambda m: m.fit(_dataset(), shuffle=False),
    "endless_tf_data": lambda m: m.fit(_dataset(repeat=True), steps_per_epoch=4, shuffle=False),
    "pydataset": lambda m: m.fit(Sequence(), shuffle=False),
    "generator": lambda m: m.fit(_generator(), steps_per_epoch=4, shuffle=False),
    "unknown_size": lambda m: m.fit(_dataset().filter(lambda *_: True), shuffle=False),
}


@pytest.mark.thinned(2)
# What Keras says of any data of unknown size.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_forms_of_data(form):
    """All give the numbers of the arrays."""
    expected = trained(dense, None, fit=FORMS["arrays"], optimizer="sgd")
    found = trained(dense, pg.PerSample(check="always"), fit=form, optimizer="sgd")
    np.testing.assert_array_equal(found[1]["loss"], expected[1]["loss"])
    assert found[0].equivalence_report.equivalent


@pytest.mark.parametrize(
    "rows",
    [1, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 7, 8))],
    ids=lambda n: f"{n}_rows",
)
def test_partial_batches_and_batches_of_one(rows):
    """N mod B in {1, B - 1}, and B = 1."""

    def fit(model):
        x, y, _ = data()
        return model.fit(x[:rows], y[:rows], batch_size=4, epochs=2, shuffle=False, verbose=0)

    plain = trained(dense, None, fit=fit, optimizer="adam")
    measured = trained(dense, pg.PerSample(check="always"), fit=fit, optimizer="adam")
    expect_bit_equal(plain, measured)
    assert measured[0].equivalence_report.equivalent


def test_class_weights():
    def classes(functional, sequential):
        return sequential([keras.Input((3,)), layers.Dense(3, activation="softmax")])

    def fit(model):
        x, labels = data()[0], np.arange(ROWS) % 3
        weights = {0: 0.5, 1: 2.0, 2: 3.0}
        return model.fit(x, labels, batch_size=4, class_weight=weights, verbose=0)

    options = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "fit": fit}
    plain = trained(classes, None, **options)
    expect_bit_equal(plain, trained(classes, pg.PerSample(check="always"), **options))


def _nested(functional, sequential):
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(4, "tanh")(layers.Concatenate()([left, right]))
    outputs = {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    return functional({"left": left, "right": right}, outputs)


def test_nested_inputs_and_outputs():
    def fit(model):
        x = {"left": data()[0], "right": data()[1]}
        y = {"a": data()[1], "b": floats(ROWS, 1, seed=3)}
        return model.fit(x, y, batch_size=4, epochs=2, verbose=0)

    options = {"optimizer": "adam", "loss": {"a": "mse", "b": "mae"}, "fit": fit}
    options |= {"loss_weights": {"a": 0.3, "b": 2.0}, "metrics": {"a": ["mae"], "b": ["mse"]}}
    plain = trained(_nested, None, **options)
    expect_bit_equal(plain, trained(_nested, pg.PerSample(check="always"), **options))


class SeesDtype(layers.Layer):
    """Keeps what `call` is given as it is."""

    def __init__(self):
        super().__init__(autocast=False)
        self.inner = layers.Dense(2)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs * ops.cast(1.0 / 3.0, inputs.dtype))


def test_eager_arrays_keep_their_dtype():
    """`call` sees double precision in plain Keras, too, where it asked for that."""

    def fit(model):
        for k in range(3):
            model.train_on_batch(*(part.astype("float64")[k : k + 4] for part in data()[:2]))
        history = keras.callbacks.History()
        history.history = {}
        return history

    def make(functional, sequential):
        model = sequential([keras.Input((3,)), SeesDtype()])
        model.autocast = False
        return model

    plain = trained(make, None, fit=fit, run_eagerly=True)
    measured = trained(make, RECORD, fit=fit, run_eagerly=True)
    expect_bit_equal(plain, measured)
