"""Samples run alone by one trace are what the loop makes of them by hand, or are run by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_pergrad.engines import _one_trace, in_turn, one_by_one
from keras_pergrad.runs import Batch, start
from tests.problems import compiled, floats

SIZE = 6


def _run(*inner):
    model = compiled(keras.Sequential([keras.Input((4, 3)), *inner, layers.Dense(2)]))
    return start(model, Batch(floats(SIZE, 4, 3, seed=1), floats(SIZE, 4, 2, seed=2)), of="own")


@pytest.fixture
def traced(monkeypatch):
    """What each trace gave; None where there is none that counts."""
    found, by_one_trace = [], _one_trace._by_one_trace

    def note(run, indices):
        found.append(by_one_trace(run, indices))
        return found[-1]

    monkeypatch.setattr(_one_trace, "_by_one_trace", note)
    return found


def _compare(run):
    losses, gradients, _ = in_turn(run, tf.range(SIZE))
    expected = one_by_one(run, tf.range(SIZE))
    for one, other in zip([losses, *gradients], [expected[0], *expected[1]], strict=True):
        # Another order of sums in a graph, in float32.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "inner",
    [[layers.Dropout(0.5)], [layers.LSTM(3, return_sequences=True)], [layers.GaussianNoise(1.0)]],
    ids=["dropout", "lstm", "noise"],
)
def test_one_trace_gives_what_the_loop_gives(inner, traced):
    run = _run(*inner)
    _compare(run)
    assert traced[0] is not None
    assert _one_trace._alike(run, one_by_one(run, tf.range(SIZE))[1], traced[0].gradients)
    predictions = [each for (each,) in traced[0].predictions]
    np.testing.assert_allclose(tf.concat(predictions, 0), run.y_pred, rtol=1e-4, atol=1e-6)


class ByPython(layers.Layer):
    """Takes a branch by a number that a trace does not have."""

    def call(self, inputs):
        return inputs * (2.0 if float(tf.reduce_sum(inputs)) > 0 else 1.0)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def test_what_cannot_be_traced_is_run_by_hand(traced):
    _compare(_run(ByPython(dtype="float32")))
    assert traced == [None]


class Numbered(layers.Layer):
    """Another function each time that it is called from Python, which a trace does once."""

    count = [0]

    def call(self, inputs):
        self.count[0] += 1
        return inputs * float(self.count[0])


def test_what_runs_otherwise_by_hand_is_run_by_hand(traced):
    run = _run(Numbered())
    Numbered.count[0] = 0
    gradients = in_turn(run, tf.range(SIZE)).gradients
    assert traced[0] is not None  # it was traced, and that was not what the first sample gave
    # By hand the calls are counted: the first sample, the trace, then the second sample.
    Numbered.count[0] = 2
    _, second = one_by_one(run, tf.range(1, 2))
    np.testing.assert_allclose(gradients[0][1], second[0][0], rtol=1e-5)
    assert not np.allclose(gradients[0][1], traced[0].gradients[0][1])
