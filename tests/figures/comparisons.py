"""R1 and R3: the engines against an independent loop in float64, on layers and on random models."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, seed, settings

import keras_pergrad as pg
from tests import oracle
from tests.architectures import architectures, build
from tests.cases import PARTLY_FLOAT32, TOLERANCE, Case, make_case, nudge, set_dtype
from tests.figures._figure import Figure
from tests.problems import Problem, by_tag

# Of float64 layers that keep to float32 inside, one rounding is more.
RTOL = {"float64": 1e-10, "float32": 2e-5, "mixed_bfloat16": 2e-2}
REDUCTIONS = ("sum_over_batch_size", "sum")
ENGINES = ("factored", "vectorized")
# By turns; XLA, which compiles for seconds, on each ninth layer.
WAYS: dict[str, Callable[[Callable], Callable]] = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}
Answers = dict[str, list[np.ndarray]]


def layer_comparisons(smoke: bool) -> Figure:
    """R1: layer × reduction × dtype × eager, graph, XLA × engine; a row a question and weight."""
    problems = by_tag("layer", without=("noise", "couples", "needs_batch", "loop_only"))
    plain = [p for p in problems if not p.tags & {"float32_only", "augmentation"}]
    worst: dict[str, float] = dict.fromkeys(RTOL, 0.0)
    count, missed = 0, []
    for number, problem in enumerate(plain[:: 24 if smoke else 1]):
        reduction = REDUCTIONS[number % 2]
        reference = _Reference(problem, reduction)
        for dtype, engine, way in _ways(number):
            errors = reference.errors(dtype, engine, way)
            count += len(errors)
            worst[dtype] = max([worst[dtype], *errors])
            if max(errors, default=0.0) > max(_rtol(problem, dtype), reference.rounding(dtype)):
                missed.append(f"{problem.name} {reduction} {dtype} {engine} {way}")
    value = f"{count:,} within; worst " + ", ".join(f"{d} {e:.0e}" for d, e in worst.items())
    target = "1e-10, 2e-5, 2e-2" if smoke else "10,000 within 1e-10, 2e-5, 2e-2"
    enough = smoke or count >= 10_000
    return Figure("engines × layers", value, target, enough and not missed, tuple(missed))


def _ways(number: int) -> list[tuple[str, str, str]]:
    """Of one layer: both engines in two dtypes, eager and graph, bfloat16 and XLA by turns."""
    both = itertools.product(("float64", "float32"), ENGINES)
    ways = [(*each, ("eager", "graph")[(k + number // 2) % 2]) for k, each in enumerate(both)]
    ways.append(("mixed_bfloat16", ENGINES[number % 2], "graph"))
    if number % 9 == 0:
        ways.append(("float32", ENGINES[number // 9 % 2], "xla"))
    return ways


def _rtol(problem: Problem, dtype: str) -> float:
    coarse = dtype == "float64" and "partly_float32" in problem.tags
    return PARTLY_FLOAT32 if coarse else RTOL[dtype]


class _Reference:
    """The gradients of samples run alone, in float64, at weights and data that float32 holds."""

    def __init__(self, problem: Problem, reduction: str):
        self.problem, self.reduction = problem, reduction
        single = self._case("float32")
        self._weights = single.model.get_weights()
        double = self._case("float64")
        self._rows = oracle.own_gradients(double.model, *double.batch)

    def errors(self, dtype: str, engine: str, way: str) -> list[float]:
        """Of every answer for every weight, relative to the largest entry of all weights."""
        case = self._case(dtype)
        rng = np.random.default_rng(3)
        self._vectors = [rng.normal(size=row.shape[1:]) for row in self._rows]
        self._factors = rng.normal(size=len(self._rows[0]))
        asked = WAYS[way](lambda x, y: self._ask(case, engine, x, y))
        found = asked(*keras.tree.map_structure(tf.convert_to_tensor, (case.x, case.y)))
        return _relative(found, _answers(self._rows, self._vectors, self._factors))

    def rounding(self, dtype: str) -> float:
        """Twice what plain Keras' own loop is off in bfloat16, which no engine can undo; else 0."""
        if "bfloat16" not in dtype:
            return 0.0
        case = self._case(dtype)
        rows = oracle.own_gradients(case.model, *case.batch)
        settings = self._vectors, self._factors
        return 2 * max(_relative(_answers(rows, *settings), _answers(self._rows, *settings)))

    def _case(self, dtype: str) -> Case:
        set_dtype(dtype.removeprefix("mixed_") if "mixed" not in dtype else "float32")
        if "mixed" in dtype:
            keras.config.set_dtype_policy(dtype)
        case = make_case(self.problem)
        if case.model.loss == "mse":  # a loss that a layer needs stays what it is
            case.model.compile("sgd", keras.losses.MeanSquaredError(reduction=self.reduction))
        if hasattr(self, "_weights"):
            case.model.set_weights(self._weights)
        single = keras.tree.map_structure(_held_by_float32, (case.x, case.y, case.sample_weight))
        return Case(case.model, *single)

    def _ask(self, case: Case, engine: str, x: Any, y: Any) -> dict[str, list[tf.Tensor]]:
        g = pg.per_sample_gradients(case.model, x, y, engine=engine, of="own")
        vectors = [tf.cast(v, t.dtype) for v, t in zip(self._vectors, g.batch_term, strict=True)]
        return {
            "rows": list(g.materialize().values()),
            "mean": g.mean(),
            "sum": g.sum(self._factors),
            "squared norms": list(g.squared_norms(by="variable").values()),
            "dot": list(g.dot(vectors, by="variable").values()),
            "second moment": g.second_moment(),
        }


def _answers(rows: list[np.ndarray], vectors: list[np.ndarray], factors: np.ndarray) -> Answers:
    """What is asked, from the gradients themselves."""
    flat = [row.reshape(len(row), -1) for row in rows]
    return {
        "rows": rows,
        "mean": [row.mean(axis=0) for row in rows],
        "sum": [np.tensordot(factors, row, 1) for row in rows],
        "squared norms": [(row**2).sum(axis=1) for row in flat],
        "dot": [row @ v.ravel() for row, v in zip(flat, vectors, strict=True)],
        "second moment": [(row**2).mean(axis=0) for row in rows],
    }


def _held_by_float32(leaf: Any) -> Any:
    if leaf is None or leaf.dtype.kind != "f":
        return leaf
    return leaf.astype("float32").astype(leaf.dtype)


def _relative(found: dict, expected: Answers) -> list[float]:
    errors = []
    for question, values in expected.items():
        scale = max(float(np.max(np.abs(value), initial=0.0)) for value in values) or 1.0
        for one, other in zip(found[question], values, strict=True):
            error = np.max(np.abs(np.asarray(one, "float64") - other), initial=0.0) / scale
            errors.append(float(error) if np.isfinite(error) else float("inf"))
    return errors


# --- random models ---


def random_architectures(smoke: bool) -> Figure:
    """R3: whole models put together at random, `factored` against the loop, in float64."""
    count = 10 if smoke else 500
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []

    @seed(20)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(architectures())
    def compare(recipe):
        outcome = _outcome(recipe)
        outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            wrong.append(f"{recipe}: {outcome}")

    compare()
    value = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    return Figure("random models", value, f"0 wrong of {count}", not wrong, tuple(wrong))


def _outcome(recipe) -> str:
    set_dtype("float64")
    model, batch = build(recipe)
    nudge(model)
    try:
        g = pg.per_sample_gradients(model, *batch, engine="factored")
        found = [np.asarray(value) for value in g.materialize().values()]
    except pg.PerGradError as error:
        return f"refused: {error}"
    loop = pg.per_sample_gradients(model, *batch, engine="loop").materialize()
    expected = [np.asarray(value) for value in loop.values()]
    error = oracle.largest_difference(found, expected) / (oracle.global_norm(expected) or 1.0)
    if error > TOLERANCE["float64"]:
        return f"wrong: by {error:.1e}"
    held = g.blocks.held or []
    return "exact by a fallback" if any(each.because for each in held) else "exact"
