"""R4: planted faults that the check must find, and clean runs that it must pass."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

import keras_pergrad as pg
from keras_pergrad.engines import Engine
from tests import planted
from tests.cases import Case, make_case, set_dtype
from tests.figures._figure import Figure
from tests.planted import Planted
from tests.problems import Problem, by_name, compiled, floats, whole

MODELS = ("dense", "conv2d", "lstm", "transformer")
ENGINES = ("vectorized", "factored")
Plant = Callable[[str], Engine]


def _by(change: planted.Change) -> Plant:
    return lambda engine: Planted(change, engine)


# (fault in an engine of that name, dtype), on each of the models.
FAULTS: dict[str, tuple[Plant, str]] = {
    "one variable × (1 + 1e-6)": (_by(planted.scaled(1 + 1e-6)), "float64"),
    "one variable × 1.001": (_by(planted.scaled(1.001)), "float32"),
    "a bias dropped": (_by(planted.dropped(1)), "float32"),
    "factor B": (_by(planted.scaled_everywhere(4.0)), "float32"),
    "factor 1/B": (_by(planted.scaled_everywhere(0.25)), "float32"),
    "sign": (_by(planted.sign_flipped), "float32"),
    "samples swapped": (planted.Swapped, "float32"),
    "two samples swapped": (lambda engine: planted.Swapped(engine, only_two=True), "float32"),
    "noise of mean zero": (_by(planted.zero_sum_noise), "float32"),
    "a sample dropped": (_by(planted.one_sample_dropped), "float32"),
    "everything × 3 at a tiny loss": (_by(planted.scaled_everywhere(3.0)), "tiny"),
    "stale weights": (planted.Stale, "float32"),
    "last variable × 1.001": (_by(planted.last_scaled(1.001)), "float32"),
    "a sample counted twice": (_by(planted.one_sample_doubled), "float32"),
    "norms of one": (_by(planted.normalized), "float32"),
    "rounded to half precision": (_by(planted.in_half_precision), "float32"),
}
# Faults that need a model of their own: the name of the problem, and the engine.
SPECIAL: dict[str, tuple[str, Engine]] = {
    "a shared call counted once": ("dense_called_twice", planted.FirstUse()),
    "a shared input counted once": ("dense_on_two_inputs", planted.FirstUse()),
    "a tied kernel counted once": ("tied_transposed_kernel", planted.FirstUse()),
    "a transposed kernel": ("dense_called_twice", Planted(planted.transposed_kernel)),
    "a transposed kernel, factored": (
        "dense_called_twice",
        Planted(planted.transposed_kernel, "factored"),
    ),
    "a wrong mask divisor": ("mask", planted.WrongDivisor()),
    "a wrong mask divisor, factored": ("mask", planted.WrongDivisor("factored")),
}


def power_of_the_check(smoke: bool) -> Figure:
    """R4: every fault × every model × both engines, and clean batches of all of them."""
    models = MODELS[:2] if smoke else MODELS
    asked = [
        (name, fault, engine)
        for k, name in enumerate(models)
        for fault in FAULTS
        for engine in (ENGINES[k % 2 :][:1] if smoke else ENGINES)
    ]
    missed = [" ".join(each) for each in asked if _is_missed(*each)]
    for fault, (name, engine) in SPECIAL.items():
        if _equivalent(_case(name, "float32"), engine):
            missed.append(f"{name}: {fault}")
    runs = 20 if smoke else 1000
    alarms = _false_alarms(models, runs)
    total = len(asked) + len(SPECIAL)
    value = f"{total - len(missed)} of {total}, {len(alarms)} false alarms in {runs}"
    target = f"{total} of {total}, 0"
    return Figure(
        "planted faults found", value, target, not missed and not alarms, (*missed, *alarms)
    )


def _is_missed(name: str, fault: str, engine: str) -> bool:
    plant, dtype = FAULTS[fault]
    return _equivalent(_case(name, dtype), plant(engine))


def _case(name: str, dtype: str) -> Case:
    set_dtype("float64" if dtype == "float64" else "float32")
    case = make_case(by_name(name))
    if dtype == "tiny":
        case.model.compile("sgd", case.model.loss, loss_weights=1e-6)
    return case


def _equivalent(case: Case, engine) -> bool:
    return pg.check_equivalence(case.model, *case.batch, engine=engine).equivalent


# --- clean runs ---


def _residual() -> keras.Model:
    """ReLUs, at which float32 may round a number to the other side."""
    start = keras.Input((12, 12, 3))
    hidden = layers.Conv2D(8, 3, padding="same")(start)
    for _ in range(2):
        inner = layers.Activation("relu")(layers.GroupNormalization(4)(hidden))
        hidden = hidden + layers.Conv2D(8, 3, padding="same")(inner)
    outputs = layers.Dense(5)(layers.GlobalMaxPooling2D()(hidden))
    return compiled(keras.Model(start, outputs), _cross_entropy())


def _cross_entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


RESIDUAL = Problem(
    "residual", _residual, lambda: (floats(32, 12, 12, 3, seed=1), whole(5, 32, seed=2), None)
)


def _false_alarms(models: tuple[str, ...], runs: int) -> list[str]:
    """Clean runs on batches drawn with repetition, so that equal samples occur."""
    set_dtype("float32")
    problems = [*map(by_name, models), RESIDUAL]
    cases = [(problem.name, make_case(problem)) for problem in problems]
    rng, alarms = np.random.default_rng(0), []
    for k in range(runs):
        name, case = cases[k % len(cases)]
        rows = rng.integers(0, len(case.x), size=len(case.x))
        engine = ENGINES[k // len(cases) % 2]
        report = pg.check_equivalence(case.model, case.x[rows], case.y[rows], engine=engine)
        alarms += [] if report.equivalent else [f"{name}: false alarm in run {k}, {engine}"]
    return alarms
