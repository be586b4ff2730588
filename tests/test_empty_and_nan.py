"""A batch of no samples, and samples with NaN: a clear answer, and the others unaffected."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from tests import oracle
from tests.problems import by_name, compiled, floats
from tests.samples import each_engine, materialized


def _dense(loss="mse") -> keras.Model:
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), loss)


@each_engine
def test_an_empty_batch(engine):
    g = pg.per_sample_gradients(_dense(), floats(0, 3), floats(0, 2), engine=engine)
    assert g.num_samples == 0
    assert g.losses.shape == (0,)
    assert g.squared_norms().shape == (0,)
    assert g.gram().shape == (0, 0)
    assert [v.shape for v in g.materialize().values()] == [(0, 3, 2), (0, 2)]
    for mean in (*g.mean(), *g.second_moment()):
        np.testing.assert_array_equal(mean, np.zeros(mean.shape))


@each_engine
@pytest.mark.parametrize("name", ["conv2d", "lstm"])
def test_an_empty_batch_on_which_tensorflow_itself_stops(engine, name):
    problem = by_name(name)
    model, batch = problem.build(), [part[:0] for part in problem.batch() if part is not None]
    try:
        model(batch[0])
    except (ValueError, tf.errors.OpError):
        pass
    else:
        pytest.skip("TensorFlow's kernels for this processor answer for no sample")
    with pytest.raises(pg.DataError, match=r"no samples.*Received: a batch of size 0"):
        pg.per_sample_gradients(model, *batch, engine=engine)


@each_engine
def test_an_empty_batch_where_the_size_is_not_known_while_tracing(engine):
    """Stacked for no sample, TensorFlow's operations fail: `vectorized` in attention, and
    `jacobian` everywhere. The graph then answers what is answered eagerly; and a full batch."""
    problem = by_name("multi_head_attention" if engine == "vectorized" else "dense")
    model, (x, y, *_) = problem.build(), problem.batch()
    spec = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in (x, y)]

    @tf.function(input_signature=spec)
    def answers(x, y):
        g = pg.per_sample_gradients(model, x, y, engine=engine)
        return g.losses, g.squared_norms(), list(g.materialize().values()), list(g.mean())

    losses, norms, rows, means = answers(x[:0], y[:0])
    assert losses.shape == norms.shape == (0,)
    assert [g.shape for g in rows] == [(0, *v.shape) for v in model.trainable_variables]
    for mean in means:
        np.testing.assert_array_equal(mean, np.zeros(mean.shape))
    expected = oracle.batch_gradient(model, x, y)
    found = [np.asarray(mean) for mean in answers(x, y)[3]]
    assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)


def test_an_empty_batch_of_a_loss_that_the_user_reduces():
    """The mean of none is NaN, which says nothing; the next batch is asked."""
    chain = [keras.Input((3,)), layers.Dense(2)]
    model = compiled(keras.Sequential(chain), lambda y, p: tf.reduce_mean(tf.square(y - p)))
    spec = [tf.TensorSpec((None, size), tf.float32) for size in (3, 2)]

    @tf.function(input_signature=spec)
    def norms_and_mean(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="factored")
        return g.norms(), g.mean()

    x, y = floats(4, 3, seed=1), floats(4, 2, seed=2)
    assert norms_and_mean(x[:0], y[:0])[0].shape == (0,)
    found = [np.asarray(each) for each in norms_and_mean(x, y)[1]]
    expected = oracle.batch_gradient(model, x, y)
    assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)


@pytest.mark.parametrize("engine", ["loop", "vectorized"])  # jacobian: zero times NaN is NaN
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("of", ["own", "contribution"])
def test_a_sample_with_nan_leaves_the_others_exact(engine, poison, of):
    model, x, y = _dense(), floats(4, 3, seed=1), floats(4, 2, seed=2)
    clean = materialized(model, x, y, engine=engine, of=of)
    x[2] = poison
    for before, after in zip(clean, materialized(model, x, y, engine=engine, of=of), strict=True):
        np.testing.assert_array_equal(before[[0, 1, 3]], after[[0, 1, 3]])
        assert not np.isfinite(after[2]).all()


@each_engine
def test_the_report_names_the_sample_with_nan(engine):
    x, y = floats(4, 3, seed=1), floats(4, 2, seed=2)
    x[2] = np.nan
    report = pg.check_equivalence(_dense(), x, y, engine=engine)
    assert not report.equivalent
    assert report.non_finite_indices == [2]
    assert "2" in str(report)


def _root_of_a_sum_of_squares(y, y_pred):
    """Finite where the prediction is right, with a derivative of 0/0 there."""
    return ops.sqrt(ops.sum(ops.square(y - y_pred), axis=-1))


@each_engine
def test_a_sample_with_nan_in_the_backward_pass_alone(engine):
    model, x, y = _dense(_root_of_a_sum_of_squares), floats(4, 3, seed=1), floats(4, 2, seed=2)
    expected = oracle.own_gradients(model, x, y)
    x[2] = y[2] = 0  # the prediction is the bias, which starts at zero
    for of in ("own", "contribution"):
        g = pg.per_sample_gradients(model, x, y, engine=engine, of=of)
        assert np.isfinite(g.losses).all()
        for found, row in zip(g.materialize().values(), expected, strict=True):
            others = np.asarray(found)[[0, 1, 3]], row[[0, 1, 3]]
            np.testing.assert_allclose(*others, rtol=1e-5, atol=1e-6)  # float32, of about 1
            assert np.isnan(found[2]).any()
    report = pg.check_equivalence(model, x, y, engine=engine)
    assert report.non_finite_indices == [2] and not report.equivalent
    assert "sample 2" in str(report)
