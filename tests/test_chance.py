"""The samples that a check asks are chosen by chance, and what ties samples together is found."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from keras_pergrad.equivalence._chance import halvings, pick
from tests.problems import compiled, floats


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 32])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_the_oracle_is_asked_for_other_samples_each_time(size, in_graph):
    choose = tf.function(lambda n, turn: pick(n, 3, turn)) if in_graph else pick_three
    turns = [np.asarray(choose(tf.constant(size), tf.constant(turn))) for turn in range(40)]
    for found in turns:
        assert len(set(found.tolist())) == len(found) == min(size, 3)
    assert {int(i) for found in turns for i in found} == set(range(size))
    assert size < 4 or len({tuple(sorted(found)) for found in turns}) > 5


def pick_three(size, turn):
    return pick(int(size), 3, turn)


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_the_halves_part_any_two_of_four_samples(size):
    for turn in range(20):
        first, second = (np.asarray(half) for half in halvings(size, turn))
        assert first.sum() == size // 2
        parted = {(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)}
        assert size > 4 or len(parted) == size


class Rolls(layers.Layer):
    """Adds a sample further on, as a queue of negatives does."""

    def __init__(self, shift, **options):
        super().__init__(**options)
        self.shift = shift

    def call(self, inputs):
        return inputs + tf.roll(inputs, self.shift, axis=0)


@pytest.mark.thinned(2)
# Halves that chance makes miss the larger ones about once in a thousand million times.
@pytest.mark.parametrize(("size", "shift"), [(2, 1), (4, 1), (4, 2), (4, 3), (32, 2), (32, 16)])
def test_the_probe_finds_samples_that_are_tied_at_any_distance(size, shift):
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), Rolls(shift), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    report = pg.check_equivalence(model, floats(size, 3), floats(size, 2), engine="jacobian")
    assert not report.coupling.passed and not report.equivalent


@pytest.mark.thinned(2)
@pytest.mark.parametrize("engine", ["jacobian", "factored"])
def test_tied_samples_are_found_where_no_sample_can_be_run_alone(engine):
    """A stateful layer knows its batch size: there is no oracle, and the probe has to see it."""
    start = keras.Input(batch_shape=(4, 3, 2))
    hidden = Rolls(2)(layers.LSTM(3, stateful=True)(start))
    model = compiled(keras.Model(start, layers.Dense(2)(hidden)))
    report = pg.check_equivalence(model, floats(4, 3, 2), floats(4, 2), engine=engine)
    assert "not asked" in str(report)
    assert not report.coupling.passed and not report.equivalent


def test_a_loss_that_ties_samples_at_a_distance_is_found():
    def loss(y, y_pred):
        return tf.reduce_mean(tf.square(y_pred - tf.roll(y_pred, 2, axis=0)))

    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)
    report = pg.check_equivalence(model, floats(4, 3), floats(4, 2), engine="loop")
    assert not report.coupling.passed and "not a sum over samples" in str(report)
