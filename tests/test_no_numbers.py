"""Strings and missing labels where numbers are needed: refused in a sentence, and only there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import compiled, floats


def _dense(loss="mse") -> keras.Model:
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)


def _rows(model, *batch) -> list[np.ndarray]:
    found = pg.per_sample_gradients(model, *batch, of="own").materialize()
    return [np.asarray(value) for value in found.values()]


WORDS = np.array([["a", "b", "c"]] * 4)
NO_NUMBERS = {
    "labels": (
        (floats(4, 3), WORDS[:, :2]),
        r"`y` is made of strings.*StringLookup.*shape \(.*, 2\)",
    ),
    "inputs": ((WORDS, floats(4, 2)), r"`x` is made of strings.*StringLookup.*shape \(.*, 3\)"),
    "weights": ((floats(4, 3), floats(4, 2), WORDS[:, 0]), "`sample_weight` is made of strings"),
    "no_labels": ((floats(4, 3),), "a label is missing.*Pass `y`.*Received: y=None"),
}


@pytest.mark.parametrize(("batch", "words"), NO_NUMBERS.values(), ids=list(NO_NUMBERS))
def test_strings_and_nothing_where_numbers_are_needed(batch, words):
    """What Keras says is of a cast, or of None."""
    for ask in (pg.per_sample_gradients, pg.check_equivalence):
        with pytest.raises(pg.DataError, match=words):
            ask(_dense(), *batch)
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=True)
    rows = tf.data.Dataset.from_tensor_slices(batch if len(batch) > 1 else batch[0]).batch(4)
    with pytest.raises(pg.DataError, match=words):
        model.fit(rows, shuffle=False, verbose=0)


@pytest.mark.parametrize("loss", ["mse", {"a": "mse", "b": None}], ids=["of_all", "of_one"])
def test_one_of_two_labels(loss):
    start = keras.Input((3,))
    outputs = {name: layers.Dense(2, name=name)(start) for name in "ab"}
    model, x, y = compiled(keras.Model(start, outputs), loss), floats(4, 3), floats(4, 2)
    if loss == "mse":
        with pytest.raises(pg.DataError, match="'a': '…', 'b': None"):
            pg.per_sample_gradients(model, x, {"a": y, "b": None})
    else:
        expected = oracle.own_gradients(model, x, {"a": y, "b": None})
        found = _rows(model, x, {"a": y, "b": None})
        assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)


class OfWords(keras.losses.Loss):
    """A loss that makes numbers of its labels itself, or needs none."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        target = 0.0 if y_true is None else tf.strings.to_number(y_true)
        return ops.mean(ops.square(y_pred - target))


@pytest.mark.parametrize("y", [None, np.array([["1", "2"]] * 4)], ids=["none", "strings"])
def test_a_loss_that_takes_what_others_do_not(y):
    model, x = _dense(OfWords()), floats(4, 3, seed=1)
    numbers = np.zeros((4, 2), "float32") if y is None else y.astype("float32")
    found = _rows(model, x, y)
    expected = oracle.own_gradients(_with_weights_of(model), x, numbers)
    assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)


def _with_weights_of(model: keras.Model) -> keras.Model:
    other = _dense()
    other.set_weights(model.get_weights())
    return other
