"""Every problem × every engine against an oracle that shares no code with the package."""

import functools
import itertools

import numpy as np
import pytest

import keras_pergrad as pg
from tests import crash_shapes, oracle
from tests.cases import Case, make_case, set_dtype, tolerance_of
from tests.problems import PROBLEMS, Problem, by_name, by_tag
from tests.samples import ENGINES, each_engine

# They run the batch as it is, samples that interact and all.
OF_THE_BATCH = ("jacobian", "factored")
QUIET = by_tag(without=("noise",))
NOISY = by_tag("noise")


@functools.lru_cache(maxsize=2)
def case_of(name: str, dtype: str) -> Case:
    """The last case stays, because the engines come one after the other on the same problem."""
    set_dtype(dtype)
    return make_case(by_name(name))


@functools.lru_cache(maxsize=2)
def own_of(name: str, dtype: str) -> oracle.Gradients:
    case = case_of(name, dtype)
    return oracle.own_gradients(case.model, *case.batch)


@functools.lru_cache(maxsize=2)
def contributions_of(name: str, dtype: str) -> oracle.Gradients:
    case = case_of(name, dtype)
    return oracle.contributions_by_weight(case.model, *case.batch)


@functools.lru_cache(maxsize=2)
def batch_of(name: str, dtype: str) -> oracle.Gradients:
    case = case_of(name, dtype)
    return oracle.batch_gradient(case.model, *case.batch)


def rows(case: Case, engine: str, of: str) -> oracle.Gradients:
    """[B, *shape] per variable; and nothing of the model has changed."""
    with oracle.expect_unchanged(case.model):
        found = pg.per_sample_gradients(case.model, *case.batch, engine=engine, of=of)
        found = found.materialize()
    assert list(found) == [v.path for v in case.model.trainable_variables]
    return [np.asarray(value) for value in found.values()]


def expect_close(found, expected, problem: Problem, dtype: str) -> None:
    """Within the tolerance of the dtype, in units of the largest entry of all."""
    scale = oracle.global_norm(expected) or 1.0
    error = oracle.largest_difference(found, expected) / scale
    assert error <= tolerance_of(problem, dtype), f"relative error {error:.2e}"


def select(problem: Problem, engine: str, dtype: str) -> Case:
    """The case, unless Keras or the definition of the engine rules it out."""
    set_dtype(dtype)
    if dtype == "float64" and "float32_only" in problem.tags:
        pytest.skip("Keras itself cannot run this layer in float64")
    case = case_of(problem.name, dtype)
    if "needs_batch" in problem.tags and engine not in OF_THE_BATCH:
        with pytest.raises(pg.UnsupportedError, match="jacobian"):
            pg.per_sample_gradients(case.model, *case.batch, engine=engine).materialize()
        pytest.skip("no sample of this model can run alone: refused, as it must be")
    if "loop_only" in problem.tags and engine not in ("loop", "factored"):
        with pytest.raises(pg.UnsupportedError, match="loop"):
            pg.per_sample_gradients(case.model, *case.batch, engine=engine).mean()
        pytest.skip("an operation that cannot be vectorized: refused, as it must be")
    if "scalar_terms" in problem.tags and engine == "jacobian":
        with pytest.raises(pg.UnsupportedError, match="loop"):
            pg.per_sample_gradients(case.model, *case.batch, engine=engine).mean()
        pytest.skip("a layer reduced its losses over the batch: refused, as it must be")
    return case


def every_way(*quick: str):
    """Both dtypes × all engines; float64 on the `quick` engines by default, the rest is slow.

    `factored` on all problems, the others on each fourth: they are slower, and older.

    float64 separates a wrong formula from rounding. float32 has its own default test below, on
    the shapes that TensorFlow gets wrong in that dtype.
    """
    ways = [
        pytest.param(
            dtype,
            engine,
            id=f"{dtype}-{engine}",
            marks=_mark(engine) if dtype == "float64" and engine in quick else pytest.mark.slow,
        )
        for dtype in ("float64", "float32")
        for engine in ENGINES
    ]
    return pytest.mark.parametrize(("dtype", "engine"), ways)


def _mark(engine: str):
    return () if engine == "factored" else pytest.mark.thinned(4)


def each(problems):
    return pytest.mark.parametrize("problem", problems, ids=_name)


def _name(problem) -> str | None:
    return getattr(problem, "name", None)


def _is_long(problem: Problem) -> bool:
    return bool(problem.tags & {"augmentation", "rnn"}) and "needs_batch" not in problem.tags


def _is_plain(problem: Problem) -> bool:
    return "layer" in problem.tags and not problem.tags & {"noise", "couples", "needs_batch"}


def _is_traced_for_long(problem: Problem) -> bool:
    """Augmentation, which has no weights: some of it goes through the samples in Python."""
    return "augmentation" in problem.tags and problem.name not in ("random_flip", "random_rotation")


@every_way("vectorized", "factored")
@each(QUIET)
def test_own_gradients_are_those_of_samples_run_alone(problem, dtype, engine):
    if engine in OF_THE_BATCH and problem.tags & {"couples", "needs_batch"}:
        pytest.skip("a row or share of samples that interact is no isolated gradient")
    case = select(problem, engine, dtype)
    expect_close(rows(case, engine, "own"), own_of(problem.name, dtype), problem, dtype)


@pytest.mark.thinned(3)
@each([p for p in QUIET if "layer" not in p.tags or "needs_batch" in p.tags])
def test_own_gradients_by_loop(problem):
    """What runs one sample after the other does the same to every layer: those are slow, above."""
    case = select(problem, "loop", "float64")
    expect_close(rows(case, "loop", "own"), own_of(problem.name, "float64"), problem, "float64")


def _adding_up(problem: Problem, dtype: str, engine: str) -> bool:
    """Whether by default: not where unrolled and augmented backward passes are most of the time,
    nor where contributions are own gradients, which are tested above, but for the Jacobian."""
    quick = dtype == "float64" and engine in ("jacobian", "factored") and not _is_long(problem)
    return quick and (engine == "jacobian" or not _is_plain(problem))


@pytest.mark.parametrize(
    ("problem", "dtype", "engine"),
    [
        pytest.param(
            *way,
            id=f"{way[0].name}-{way[1]}-{way[2]}",
            marks=_mark(way[2]) if _adding_up(*way) else pytest.mark.slow,
        )
        for way in itertools.product(
            by_tag(without=("no_decomposition",)), ("float64", "float32"), ENGINES
        )
    ],
)
def test_contributions_add_up_to_the_batch_gradient(problem, dtype, engine):
    if engine not in OF_THE_BATCH and "couples" in problem.tags:
        pytest.skip("isolated gradients of samples that interact need not add up")
    case = select(problem, engine, dtype)
    gradients = pg.per_sample_gradients(case.model, *case.batch, engine=engine)
    parts = zip(gradients.mean(), gradients.batch_term, strict=True)
    found = [np.asarray(mean) + np.asarray(term) for mean, term in parts]
    expect_close(found, batch_of(problem.name, dtype), problem, dtype)


@every_way("vectorized", "factored")
@each(
    [
        # In a plain layer problem contributions are own gradients, which are tested above.
        pytest.param(p, marks=pytest.mark.slow if _is_plain(p) or _is_traced_for_long(p) else ())
        for p in by_tag(without=("no_decomposition", "own_terms"))
    ]
)
def test_each_contribution_is_the_gradient_of_that_samples_term(problem, dtype, engine):
    if engine != "jacobian" and "couples" in problem.tags:
        pytest.skip("neither isolated gradients nor shares are the terms' gradients there")
    case = select(problem, engine, dtype)
    expected = contributions_of(problem.name, dtype)
    expect_close(rows(case, engine, "contribution"), expected, problem, dtype)


@every_way("vectorized", "factored")
@each([p for p in PROBLEMS if p.contribution_weights])
def test_contributions_are_own_gradients_times_the_closed_weights(problem, dtype, engine):
    case = select(problem, engine, dtype)
    own, weights = own_of(problem.name, dtype), problem.contribution_weights()
    expected = [weights.reshape(-1, *[1] * (g.ndim - 1)) * g for g in own]
    expect_close(rows(case, engine, "contribution"), expected, problem, dtype)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", [*crash_shapes.NAMES, "conv2d", "lstm_after_dense", "gru_masked"])
def test_float32_own_gradients(name):
    problem = by_name(name)
    case = select(problem, "vectorized", "float32")
    expected = own_of(problem.name, "float32")
    expect_close(rows(case, "vectorized", "own"), expected, problem, "float32")


@pytest.mark.slow  # by default the noise is compared with one-hot weights above
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each(NOISY)
def test_vectorized_replays_the_noise_of_the_loop(problem, dtype):
    case = select(problem, "vectorized", dtype)
    expected = rows(case, "loop", "own")
    expect_close(rows(case, "vectorized", "own"), expected, problem, dtype)


@each_engine
@each(by_tag("no_decomposition"))
def test_a_loss_without_decomposition_is_refused(problem, engine):
    case = make_case(problem)
    if (problem.name, engine) == ("circle", "factored"):
        g = pg.per_sample_gradients(case.model, *case.batch, engine=engine)
        assert "samples interact" in g.summary()  # shares, which say that they are no more
        return
    with pytest.raises(pg.PerGradError):
        pg.per_sample_gradients(case.model, *case.batch, engine=engine).materialize()
