"""The kinds of models that a user writes, with the package's base classes."""

import keras
import pytest
from keras import layers

import keras_pergrad as pg
from tests.twins import data, dense, noisy

SETTINGS = pg.PerSample(engine="vectorized", check=3, on_failure="record")


def functional() -> keras.Model:
    """With noise, regularizers and BatchNormalization."""
    return noisy(pg.PerGradModel, pg.PerGradSequential)


def normalized() -> keras.Model:
    """With BatchNormalization, and nothing random."""
    start = keras.Input((3,))
    hidden = layers.BatchNormalization()(layers.Dense(4, "tanh")(start))
    return pg.PerGradModel(start, layers.Dense(2)(hidden))


def sequential() -> keras.Model:
    """A plain stack."""
    return dense(pg.PerGradModel, pg.PerGradSequential)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Subclass(pg.PerGradModel):
    """With a `call`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = layers.Dense(4, "tanh"), layers.Dense(2)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 4))

    def call(self, inputs):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Backbone(pg.PerGradModel):
    """Functional style."""

    def __init__(self, width=4, **options):
        start = keras.Input((3,))
        super().__init__(start, layers.Dense(2)(layers.Dense(width)(start)), **options)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


KINDS = {
    "functional": functional,
    "sequential": sequential,
    "subclass": Subclass,
    "backbone": Backbone,
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))


def fit_once(model, epochs=1):
    """`fit` on batches of four in their order, the last one smaller."""
    x, y, _ = data()
    return model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
