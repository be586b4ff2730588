"""State that a forward pass keeps in Python, alone and beside layers that mix samples."""

import itertools

import keras
import numpy as np
from keras import layers

from tests.broken.base import (
    MODEL,
    NORMAL,
    SIZE,
    Broken,
    Mixes,
    chain,
    dense,
    numbers,
    summed,
)
from tests.broken.unsteady import unsteady
from tests.problems import compiled


class Counting(keras.Layer):
    """Its outputs depend on how often it was called; `how` keeps that."""

    def __init__(self, how, **options):
        super().__init__(**options)
        self.how = how()

    def call(self, inputs):
        return inputs * (1 + 0.1 * (self.how() % 5))


class InArray:
    """Counts in an array, in place."""

    def __init__(self):
        self.array = np.zeros(1)

    def __call__(self):
        self.array += 1
        return float(self.array[0])


class InClass:
    """Counts in its class."""

    calls = 0

    def __call__(self):
        InClass.calls += 1
        return InClass.calls


def in_closure():
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


def in_iterator():
    counter = itertools.count()
    return lambda: next(counter)


class Drawing(keras.Layer):
    """Draws from a generator of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rng = np.random.default_rng(0)

    def call(self, inputs):
        return inputs * float(self.rng.normal())


def counting(how, *after):
    return chain((5,), dense(4), lambda: Counting(how, name="counting"), *after, dense())


def stateful(*after, loss="mse"):
    """A stateful recurrent layer, which no sample can be run through alone."""

    def build() -> keras.Model:
        hidden = start = keras.Input(batch_shape=(SIZE, 3, 5))
        for make in (lambda: layers.LSTM(4, stateful=True), *after, dense()):
            hidden = make()(hidden)
        return compiled(keras.Model(start, hidden), loss() if callable(loss) else loss)

    return build


KEPT: dict[str, Broken] = {
    "counts in an array": Broken(counting(InArray), numbers(5), (("state", "counting.how"),)),
    "counts in a closure": Broken(
        counting(in_closure), numbers(5), (("state", "calls of in_closure"),)
    ),
    "counts in an iterator": Broken(
        counting(in_iterator), numbers(5), (("state", "counter of in_iterator"),)
    ),
    "draws from a generator of its own": Broken(
        chain((5,), dense(4), lambda: Drawing(name="drawing"), dense()),
        numbers(5),
        (("randomness", "drawing"),),
    ),
    "counts, beside batch normalization": Broken(
        counting(InArray, layers.BatchNormalization),
        numbers(5),
        (("state", "counting.how"), (MODEL, "batch_normalization")),
    ),
    "noise of NumPy, beside batch normalization": Broken(
        chain(
            (5,),
            dense(4),
            layers.BatchNormalization,
            lambda: Mixes(unsteady, name="shaken"),
            dense(),
        ),
        numbers(5),
        (("randomness", "shaken"), (MODEL, "batch_normalization")),
        engine="loop",
    ),
    "stateful, beside batch normalization": Broken(
        stateful(layers.BatchNormalization),
        numbers(3, 5),
        (("state", "lstm"), (MODEL, "batch_normalization")),
        engine="jacobian",
    ),
    "stateful, and a sum": Broken(
        stateful(loss=summed),
        numbers(3, 5),
        (("state", "lstm"), (NORMAL, "mean_squared_error")),
        engine="jacobian",
    ),
}
