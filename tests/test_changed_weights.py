"""Weights that change their role between steps: unfrozen, or trained by two models in turn."""

import keras
import pytest
from keras import layers

import keras_pergrad as pg
from tests import oracle
from tests.problems import floats
from tests.twins import expect_bit_equal, trained

pytestmark = pytest.mark.usefixtures("deterministic")
ALWAYS = pg.PerSample(check="always")
X, Y = floats(6, 3, seed=1), floats(6, 2, seed=2)


def _fit(model, x=X, y=Y) -> keras.callbacks.History:
    return model.fit(x, y, batch_size=4, shuffle=False, verbose=0)


@pytest.mark.parametrize(
    "again", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["recompiled", "unfrozen"]
)
def test_a_layer_is_unfrozen_between_two_fits(again):
    """Keras goes on with the frozen step until the model is compiled again; so do we."""

    def make(functional, sequential):
        return sequential([keras.Input((3,)), layers.Dense(4, trainable=False), layers.Dense(2)])

    def fit(settings):
        def run(model):
            _fit(model)
            frozen = model.layers[0].kernel.numpy()
            model.layers[0].trainable = True
            if again:
                model.compile("adam", "mse", **settings)
            history = _fit(model)
            assert (model.layers[0].kernel.numpy() != frozen).any() == again
            return history

        return run

    plain = trained(make, None, fit=fit({}), optimizer="adam")
    measured = trained(make, ALWAYS, fit=fit({"per_sample": ALWAYS}), optimizer="adam")
    expect_bit_equal(plain, measured)
    report = measured[0].equivalence_report
    assert report.equivalent
    assert len(report.rows) == (4 if again else 2)


def _adversaries(cls, **settings) -> tuple[keras.Model, keras.Model]:
    """A critic of what a generator makes, and the generator behind it, with the critic frozen."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    start, made = keras.Input((3,)), keras.Input((2,))
    critic = cls(made, layers.Dense(1)(layers.Dense(4, "tanh")(made)), name="critic")
    critic.compile(keras.optimizers.Adam(0.01), "mse", **settings)
    generator = keras.Sequential([start, layers.Dense(4, "tanh"), layers.Dense(2)])
    both = cls(start, critic(generator(start)), name="both")
    critic.trainable = False
    both.compile(keras.optimizers.SGD(0.1), "mse", **settings)
    critic.trainable = True
    return critic, both


def test_two_models_train_what_they_share_in_turn():
    """Each is traced when it is first run, with the weights that are trainable then, as Keras."""

    def train(cls, **settings):
        critic, both = _adversaries(cls, **settings)
        losses = []
        for _ in range(2):
            critic.trainable = True
            losses += _fit(critic, floats(6, 2, seed=3), floats(6, 1, seed=4)).history["loss"]
            critic.trainable = False
            losses += _fit(both, X, floats(6, 1, seed=5)).history["loss"]
        return critic, both, losses

    plain, measured = train(keras.Model), train(pg.PerGradModel, per_sample=ALWAYS)
    assert plain[2] == measured[2]
    for before, after in zip(plain[:2], measured[:2], strict=True):
        left, right = oracle.state_of(before), oracle.state_of(after)
        assert len(left) == len(right)
        assert all((a == b).all() for a, b in zip(left, right, strict=True))
        assert after.equivalence_report.equivalent
    assert [len(model.equivalence_report.rows) for model in measured[:2]] == [4, 4]
