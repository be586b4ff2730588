"""A number that float32 rounds to the other side of a kink is no difference between gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from keras_pergrad.models._stash import Stash
from keras_pergrad.runs import Batch
from tests import planted
from tests.problems import compiled, floats
from tests.twins import dense, trained

WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "steps": {"steps_per_execution": 2}}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
X, Y = floats(16, 1000, seed=1), floats(16, 2, seed=2)


def _on_the_kink(units: int) -> keras.Model:
    """ReLUs of which `units` are given the batch's sample 3 at zero, or what rounding makes of it.

    A product of one row adds its terms up in another order than that of a batch, so that a sample
    that is run alone finds itself on the other side of some of them.
    """
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(128, activation="relu")
    model = pg.PerGradSequential([keras.Input((1000,)), hidden, layers.Dense(2)])
    bias = np.zeros(128, "float32")
    bias[:units] = -tf.matmul(X, hidden.kernel)[3, :units].numpy()
    hidden.bias.assign(bias)
    return compiled(model)


def test_the_model_is_on_the_kink():
    """Else the tests of this file would prove nothing."""
    hidden = _on_the_kink(128).layers[0]
    in_the_batch, alone = hidden(X)[3] > 0, hidden(X[3:4])[0] > 0
    assert np.any(in_the_batch != alone)


@pytest.mark.parametrize("engine", ["loop", "factored", "vectorized"])
def test_a_check_asks_float64(engine):
    report = pg.check_equivalence(_on_the_kink(128), X, Y, engine=engine)
    assert report.equivalent
    findings = (report.mean, report.oracle)
    if max(finding.error for finding in findings) > report.tolerance.rtol:
        assert "run again in float64" in report.tie_breaker


@pytest.mark.parametrize("engine", ["loop", "factored", "vectorized"])
def test_contributions_are_not_refused(engine):
    g = pg.per_sample_gradients(_on_the_kink(2), X, Y, engine=engine)
    assert g.squared_norms().shape == [16]
    assert not g.remarks


def test_the_self_check_asks_float64():
    """Two samples, the first and the last, are run alone by it: here the last is on the kink."""
    model = _on_the_kink(128)
    rows = [*range(4, 16), 0, 1, 2, 3]
    g = pg.per_sample_gradients(model, X[rows], Y[rows], engine="factored")
    assert not g.remarks and not any(held.because for held in g.blocks.held)


# --- in `fit` ---


def _in_float32_alone(change):
    def changed(gradients, indices):
        single = gradients[0].dtype == tf.float32
        return change(gradients, indices) if single else gradients

    return planted.Planted(changed)


@pytest.mark.thinned(3)
@each_way
def test_what_float32_alone_gets_wrong_is_acquitted_and_leaves_no_trace(way):
    engine = _in_float32_alone(planted.one_sample_dropped)
    plain, _ = trained(dense, None, **way)
    watched, _ = trained(dense, pg.PerSample(engine, check="always"), **way)
    report = watched.equivalence_report
    assert report.equivalent and report.mean.error > report.tolerance.rtol
    assert "float64" in report.tie_breaker and "not equivalent" not in report.tie_breaker
    assert report.step is not None
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.thinned(3)
@each_way
def test_what_is_wrong_in_float64_too_is_not(way):
    settings = pg.PerSample(planted.Planted(planted.one_sample_dropped))
    with pytest.raises(pg.EquivalenceError) as caught:
        trained(dense, settings, **way)
    assert "(not equivalent); that decides" in caught.value.report.tie_breaker


def test_float64_is_asked_once_where_it_says_no(monkeypatch):
    asked = []
    settings = pg.PerSample(
        planted.Planted(planted.one_sample_dropped), check="always", on_failure="record"
    )
    again = Stash.take
    monkeypatch.setattr(Stash, "take", lambda stash: asked.append(again(stash)) or asked[-1])
    model, _ = trained(dense, settings)
    assert len(asked) > 2  # the batch is let go
    assert "check_equivalence` on such a batch does" in model.equivalence_report.tie_breaker


def test_a_tolerance_that_was_asked_for_is_not_second_guessed():
    check = pg.EquivalenceCheck("first", rtol=1e-5)
    settings = pg.PerSample(_in_float32_alone(planted.one_sample_dropped), check=check)
    with pytest.raises(pg.EquivalenceError) as caught:
        trained(dense, settings)
    assert "where no tolerance was" in caught.value.report.tie_breaker


def test_a_batch_is_kept_as_it_is():
    x = {"words": tf.constant(["a", "b"]), "ids": tf.constant([[1], [2]])}
    batch = Batch(x, tf.constant([1.0, 2.0], tf.bfloat16), None)
    stash = Stash(batch)

    @tf.function
    def keep(when):
        stash.keep(batch, when)

    keep(tf.constant(False))
    assert stash.take() is None
    keep(tf.constant(True))
    kept = stash.take()
    found = kept.batch
    assert stash.take() is None
    assert kept.places == [0, 1] and kept.is_whole
    assert found.sample_weight is None and found.y.dtype == tf.bfloat16
    for one, other in zip(found.leaves, batch.leaves, strict=True):
        np.testing.assert_array_equal(one, other)
