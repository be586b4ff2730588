"""The verdict of a check on every problem, and the numbers in its report."""

import json
import math

import numpy as np
import pytest

import keras_pergrad as pg
from tests import oracle, planted
from tests.cases import make_case
from tests.problems import Problem, by_name, by_tag

ENGINES = ("loop", "vectorized", "factored")
# What a check concludes beyond the plain rows: these are worth an engine more by default.
TELLING = ("mask", "sum", "mask_sum", "no_reduction", "add_loss_vector", "compute_loss_sum")
FAST_LAYERS = ("conv2d", "lstm_after_dense", "gru_masked", "batch_normalization_training")


def _runs_on(problem: Problem, engine: str) -> bool:
    """Whether the definition of the engine lets the problem run at all."""
    if "needs_batch" in problem.tags:
        return False
    return engine == "loop" or "loop_only" not in problem.tags


def _by_default(problem: Problem, engine: str) -> bool:
    """One engine for the losses and kinds, both for those that a verdict turns on."""
    if "layer" in problem.tags:
        return engine == "vectorized" and problem.name in FAST_LAYERS
    if engine in ("vectorized", "loop"):
        return problem.name in TELLING
    return problem.name in TELLING or not problem.name.startswith(SAME_AS_MSE)


# Losses [B] of Keras that are summed up as "mse" is; weights that differ only in their numbers.
SAME_AS_MSE = (
    "binary_",
    "categorical_",
    "label_smoothing",
    "kl_divergence",
    "poisson",
    "huber",
    "log_cosh",
    "cosine_",
    "sample_weight_",
    "functional_style",
    "call_style",
    "batch_of_",
    "regularizer_l",
    "activity_regularization_",
    "circle",
    "tversky",
    "nested_",
    "vae_noise",
    "add_loss_sum",
    "add_loss_mean_",
    "add_loss_vector_",
    "mean_with_sample_weight_",
)


def _verdicts():
    problems = [*by_tag("kind"), *by_tag("loss"), *by_tag("layer")]
    for engine in ENGINES:
        for problem in dict.fromkeys(problems):
            if _runs_on(problem, engine):
                marks = () if _by_default(problem, engine) else pytest.mark.slow
                yield pytest.param(problem, engine, id=f"{problem.name}-{engine}", marks=marks)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("problem", "engine"), [*_verdicts()])
def test_the_verdict_of_every_problem(problem, engine):
    case = make_case(problem)
    with oracle.expect_unchanged(case.model):
        report = pg.check_equivalence(case.model, *case.batch, engine=engine)
    expected = not problem.tags & {"not_equivalent", "couples"}
    assert report.equivalent is expected, str(report)
    assert report.engine == engine


def test_assert_equivalent_passes_on_a_good_model():
    case = make_case(by_name("mse"))
    assert pg.assert_equivalent(case.model, *case.batch) is None


def test_assert_equivalent_raises_with_the_report():
    case = make_case(by_name("sum"))
    with pytest.raises(pg.EquivalenceError) as caught:
        pg.assert_equivalent(case.model, *case.batch, engine="loop")
    report = caught.value.report
    assert isinstance(caught.value, AssertionError)
    assert not report.equivalent and report.engine == "loop"
    assert str(caught.value) == str(report)


def test_assert_equivalent_passes_its_tolerance_on():
    case, engine = make_case(by_name("mse")), planted.Planted(planted.scaled_everywhere(1.01))
    with pytest.raises(pg.EquivalenceError):
        pg.assert_equivalent(case.model, *case.batch, engine=engine)
    # The planted error is 0.01, ten times less than what is allowed here.
    pg.assert_equivalent(case.model, *case.batch, engine=engine, rtol=0.1)


@pytest.mark.parametrize("variable", [0, 3])
def test_report_numbers(variable):
    """One variable of four is half as large again: every number of the report follows from it."""
    case = make_case(by_name("mse"))
    engine = planted.Planted(planted.scaled(1.5, variable))
    report = pg.check_equivalence(case.model, *case.batch, engine=engine)
    batch = oracle.batch_gradient(case.model, *case.batch)
    norms = [float(np.linalg.norm(g)) for g in batch]
    assert [row.path for row in report.rows] == [v.path for v in case.model.trainable_variables]
    for k, (row, norm) in enumerate(zip(report.rows, norms, strict=True)):
        factor = 1.5 if k == variable else 1.0
        # 1e-5 is about a hundred float32 roundings: sums in another order than the oracle's.
        assert row.batch_norm == pytest.approx(norm, rel=1e-5)
        assert row.mean_norm == pytest.approx(factor * norm, rel=1e-5)
        assert row.relative_error == pytest.approx(factor - 1, abs=1e-5)
        assert row.absolute_error == pytest.approx((factor - 1) * norm, abs=1e-5 * norm)
        assert row.cosine == pytest.approx(1.0, abs=1e-5)
        assert row.passed is (k != variable)
    overall = 0.5 * norms[variable] / math.hypot(*norms)
    assert report.max_relative_error == pytest.approx(overall, rel=1e-4)
    assert not report.equivalent and not report.mean.passed and not report.oracle.passed
    assert report.coupling.passed

    as_dict = json.loads(json.dumps(report.to_dict()))
    assert as_dict["equivalent"] is False
    assert as_dict["max_relative_error"] == report.max_relative_error
    for saved, row in zip(as_dict["rows"], report.rows, strict=True):
        assert {**saved, "shape": tuple(saved["shape"])} == vars(row)

    lines = str(report).splitlines()
    [failed] = [line for line in lines if line.strip().startswith(report.rows[variable].path)]
    assert failed.split().count("FAIL") == 1
    tests_that_failed = sum(not f.passed for f in (report.mean, report.oracle, report.coupling))
    assert str(report).count("FAIL") == 1 + tests_that_failed


def test_a_report_without_a_failure_says_no_fail():
    case = make_case(by_name("mse"))
    report = pg.check_equivalence(case.model, *case.batch)
    assert "FAIL" not in str(report) and "is the batch gradient" in str(report)
    assert all(row.passed for row in report.rows)
