"""The factored engine where users meet it: in `fit`, in a loop of their own, in mixed precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from keras_pergrad.gradients import Materialized, Product
from keras_pergrad.sites import rules
from tests import oracle
from tests.cases import make_case
from tests.problems import by_name, compiled, floats, whole
from tests.twins import data, dense, expect_close, trained

WAYS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "steps": {"steps_per_execution": 2},
    "xla": {"jit_compile": True},
}
each_way = pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, id=name, marks=pytest.mark.slow if name == "xla" else ())
        for name, way in WAYS.items()
    ],
)
MEAN = pg.PerSample("factored", check="off", aggregator="mean")


@each_way
def test_the_mean_trains_as_the_batch_gradient(way):
    plain, measured = (
        trained(dense, each, optimizer=keras.optimizers.SGD(0.1), **way) for each in (None, MEAN)
    )
    # float32, eight steps of 0.1: rounding of another order of sums.
    expect_close(plain, measured, rtol=1e-5)


@pytest.mark.thinned(3)
@each_way
def test_the_check_passes(way):
    settings = pg.PerSample("factored", check="always")
    model, _ = trained(dense, settings, **way)
    assert model.equivalence_report.equivalent
    assert model.equivalence_report.engine == "factored"


def _operations(per_sample) -> list[str]:
    """The types of the operations of a traced training step."""
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    model.compile(keras.optimizers.SGD(0.1), "mse", per_sample=per_sample)
    x, y, _ = data()
    step = tf.function(model.train_step)
    graph = step.get_concrete_function((tf.constant(x), tf.constant(y))).graph
    return [operation.type for operation in graph.get_operations()]


def test_a_training_step_is_shared_with_the_aggregator():
    """Two dense layers: the forward pass is in the graph once, and so is the backward pass."""
    plain, measured = _operations(None), _operations(MEAN)
    assert measured.count("Tanh") == plain.count("Tanh") == 1
    assert measured.count("TanhGrad") == plain.count("TanhGrad") == 1
    # The mean is the tape's gradient: no product of what was kept is made for it.
    assert measured.count("MatMul") == plain.count("MatMul")


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_a_loop_of_ones_own_clips_from_one_pass(jit_compile):
    model, limit = compiled(dense(keras.Model, keras.Sequential)), 0.5
    x, y = floats(6, 3, seed=1), floats(6, 2, seed=2)

    @tf.function(jit_compile=jit_compile)
    def clipped(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="factored")
        norms = g.norms()
        return norms, g.sum(tf.minimum(1.0, limit / norms))

    norms, found = clipped(tf.constant(x), tf.constant(y))
    rows = oracle.own_gradients(model, x, y)
    expected = np.sqrt(sum((r.reshape(6, -1) ** 2).sum(axis=1) for r in rows))
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    scales = np.minimum(1.0, limit / expected)
    assert np.any(scales < 1) and np.any(scales == 1)
    for sum_, row in zip(found, rows, strict=True):
        np.testing.assert_allclose(sum_, np.tensordot(scales, row, 1), atol=1e-5)


def test_an_unknown_batch_size():
    model = compiled(dense(keras.Model, keras.Sequential))

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 2])])
    def norms(x, y):
        return pg.per_sample_gradients(model, x, y, engine="factored").norms()

    for size in (1, 4, 5):
        x, y = floats(size, 3, seed=1), floats(size, 2, seed=2)
        rows = oracle.own_gradients(model, x, y)
        expected = np.sqrt(sum((r.reshape(size, -1) ** 2).sum(axis=1) for r in rows))
        np.testing.assert_allclose(norms(x, y), expected, rtol=1e-5)


def test_norms_of_a_wide_layer_write_nothing_out():
    """No tensor of the graph has as many entries as B kernels, nor a kernel of each sample."""
    model = compiled(keras.Sequential([keras.Input((64,)), layers.Dense(96), layers.Dense(2)]))
    x, y = floats(32, 64, seed=1), floats(32, 2, seed=2)

    @tf.function
    def norms(x, y):
        return pg.per_sample_gradients(model, x, y, engine="factored").norms()

    graph = norms.get_concrete_function(tf.constant(x), tf.constant(y)).graph
    sizes = [t.shape.num_elements() or 0 for o in graph.get_operations() for t in o.outputs]
    assert max(sizes) <= 64 * 96


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_measured_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(dense(keras.Model, keras.Sequential))
    x, y = floats(6, 3, seed=1), floats(6, 2, seed=2)
    by_engine = [
        pg.per_sample_gradients(model, x, y, engine=engine).norms()
        for engine in ("factored", "vectorized")
    ]
    assert by_engine[0].dtype == tf.float32
    # float16 has eleven bits and bfloat16 eight: a few roundings of 5e-4 and 4e-3.
    rtol = 5e-3 if policy == "mixed_float16" else 4e-2
    np.testing.assert_allclose(*by_engine, rtol=rtol)


@pytest.mark.parametrize("name", ["dense", "conv2d"])
def test_a_wrong_rule_is_noticed_and_replaced(name, monkeypatch):
    """The self-check: the kernel's factor is three times too large, and falls back with a name."""
    kind = {"dense": "MatMul", "conv2d": "Conv2D"}[name]
    right = rules.RULES[kind]

    def wrong(site, gradient):
        return right(site, 3.0 * gradient)

    monkeypatch.setitem(rules.RULES, kind, wrong)
    case = make_case(by_name(name))
    with pytest.warns(pg.PerGradWarning, match=rf"kernel.* {kind} at '.*(dense|conv2d)"):
        g = pg.per_sample_gradients(case.model, *case.batch, engine="factored")
    expected = oracle.contributions_by_weight(case.model, *case.batch)
    found = [np.asarray(value) for value in g.materialize().values()]
    assert oracle.largest_difference(found, expected) <= 1e-5 * oracle.global_norm(expected)
    assert "did not agree" in g.summary()


def test_samples_swapped_by_a_rule_are_noticed(monkeypatch):
    """Their sum is right; only a sample run alone can tell, and takes it for interaction."""
    right = rules.RULES["MatMul"]

    def swapped(site, gradient):
        rows = right(site, gradient).materialize()
        return Materialized(tf.roll(rows, 1, axis=0))

    monkeypatch.setitem(rules.RULES, "MatMul", swapped)
    case = make_case(by_name("dense"))
    g = pg.per_sample_gradients(case.model, *case.batch, engine="factored")
    assert "samples interact" in g.summary() and "kernel" in "".join(g.remarks)


def test_in_fit_the_mean_is_that_of_the_samples(monkeypatch):
    """`mean()` may be the tape's own sum; a check that compared that could not fail."""
    added_up = Materialized.weighted_sum
    monkeypatch.setattr(
        Materialized, "weighted_sum", lambda factor, weights: 1.5 * added_up(factor, weights)
    )
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    model.compile("sgd", "mse", per_sample=pg.PerSample("factored", on_failure="record"))
    x, y, _ = data()
    model.fit(x, y, epochs=1, verbose=0)
    report = model.equivalence_report
    assert not report.mean.passed and report.oracle.passed and report.coupling.passed
    assert any(row.relative_error > 0.1 for row in report.rows)


def test_projections_of_few_samples_are_their_inner_products():
    """Wide layers: with all samples instead of with the mean, which is as large as the weight."""
    model = compiled(keras.Sequential([keras.Input((40,)), layers.Dense(64), layers.Dense(2)]))
    g = pg.per_sample_gradients(model, floats(4, 40), floats(4, 2), engine="factored")
    kinds = [type(factor.seen) for factor in g.blocks.at(tf.range(4)).factors]
    assert Product in kinds
    np.testing.assert_allclose(g.projections(), g.dot(g.mean()), rtol=1e-5)
    np.testing.assert_allclose(g.projections(), np.mean(g.gram(), axis=1), rtol=1e-5)


def _sequences() -> keras.Model:
    """Several positions, repeated ids, and a weight without a rule."""
    start = keras.Input((4,), dtype="int32")
    hidden = layers.Embedding(9, 16)(start)
    hidden = hidden + layers.Dense(16, "tanh")(layers.LayerNormalization()(hidden))
    return compiled(keras.Model(start, layers.Dense(2)(layers.Flatten()(hidden))))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("way", ["eager", "graph"])
def test_what_has_to_be_written_out_fits_the_budget(way):
    model, x, y = _sequences(), whole(9, 6, 4, seed=1), floats(6, 2, seed=2)
    written_out = 8 * (9 * 16 + 16 * 16)  # of one sample: the table, and the kernel met four times

    def ask(x, y, budget):
        g = pg.per_sample_gradients(model, x, y, engine="factored", memory_budget=budget)
        return g.gram(), g.second_moment()

    asked = tf.function(ask, autograph=False) if way == "graph" else ask
    x, y = tf.constant(x), tf.constant(y)
    at_once, in_chunks = ask(x, y, 2**30), asked(x, y, 2 * written_out)
    for one, other in zip(tf.nest.flatten(at_once), tf.nest.flatten(in_chunks), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
def test_chunks_are_as_large_as_the_budget_allows():
    model, x, y = _sequences(), whole(9, 6, 4, seed=1), floats(6, 2, seed=2)
    written_out = 8 * (9 * 16 + 16 * 16)  # of one sample: the table, and the kernel met four times
    for samples in (1, 2, 5):
        budget = samples * written_out + 1
        g = pg.per_sample_gradients(model, x, y, engine="factored", memory_budget=budget)
        assert g.blocks.for_writing_out().chunk == samples
    g = pg.per_sample_gradients(model, x, y, engine="factored")
    assert g.blocks.for_writing_out() is g.blocks
