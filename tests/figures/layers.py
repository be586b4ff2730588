"""R2 and R8: layers of Keras, and the random ones among them."""

import numpy as np

import keras_pergrad as pg
from tests import oracle
from tests.cases import make_case, set_dtype, tolerance_of
from tests.figures._figure import Figure
from tests.problems import Problem, by_tag


def layer_configurations(smoke: bool) -> Figure:
    """R2: the fast engines on every layer problem, against the oracle, in both dtypes."""
    problems = by_tag("layer", without=("noise", "couples"))[:: 4 if smoke else 1]
    found = {
        f"{problem.name} {engine} {dtype}": _outcome(problem, engine, dtype)
        for problem in problems
        for engine in ("factored", "vectorized")
        # Factored answers, where no sample can be run alone, and there is nothing to compare with.
        if engine == "vectorized" or "needs_batch" not in problem.tags
        for dtype in (("float64",) if smoke else ("float64", "float32"))
    }
    wrong = tuple(name for name, outcome in found.items() if outcome not in ("exact", "refused"))
    refused = sum(outcome == "refused" for outcome in found.values())
    value = f"{len(found) - refused - len(wrong)} exact, {refused} refused, {len(wrong)} wrong"
    target = f"all {len(found)} exact or refused"
    return Figure("configurations of trainable layers", value, target, not wrong, wrong)


def _outcome(problem: Problem, engine: str, dtype: str) -> str:
    set_dtype(dtype)
    case = make_case(problem)
    try:
        found = _own(case, engine)
    except pg.UnsupportedError:
        return "refused"
    expected = oracle.own_gradients(case.model, *case.batch)
    error = oracle.largest_difference(found, expected) / (oracle.global_norm(expected) or 1.0)
    return "exact" if error <= tolerance_of(problem, dtype) else f"wrong by {error:.1e}"


def _own(case, engine: str) -> list[np.ndarray]:
    g = pg.per_sample_gradients(case.model, *case.batch, engine=engine, of="own")
    return [np.asarray(value) for value in g.materialize().values()]


def random_layers(smoke: bool) -> Figure:
    """R8: rows distinct for equal samples; the replayed noise gives the batch gradient."""
    set_dtype("float32")
    problems = by_tag("noise")[:: 4 if smoke else 1]
    errors = {problem.name: _replay_error(problem) for problem in problems}
    own = [p for p in problems if not p.tags & {"own_terms", "batch_noise"}]
    shared = tuple(p.name for p in own if not _distinct(p))
    # The target of 1e-6 is about eight roundings of float32.
    wrong = tuple(f"{name} {error:.1e}" for name, error in errors.items() if error > 1e-6)
    value = f"worst {max(errors.values()):.1e}, {len(shared)} with shared noise"
    target = f"1e-6 on {len(problems)}, 0 of {len(own)}"
    return Figure("random layers", value, target, not (wrong or shared), wrong + shared)


def _replay_error(problem: Problem) -> float:
    case = make_case(problem)
    g = pg.per_sample_gradients(case.model, *case.batch)
    found = [np.asarray(m) + np.asarray(r) for m, r in zip(g.mean(), g.batch_term, strict=True)]
    expected = oracle.batch_gradient(case.model, *case.batch)
    return oracle.largest_difference(found, expected) / oracle.global_norm(expected)


def _distinct(problem: Problem) -> bool:
    """Twelve equal samples: a draw with few outcomes may repeat, but not for all of them."""
    case = make_case(problem)
    same = np.repeat(case.x[:1], 12, axis=0), np.repeat(case.y[:1], 12, axis=0)
    norms = pg.per_sample_gradients(case.model, *same).norms().numpy()
    return len(np.unique(norms)) > 1
