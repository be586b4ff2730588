"""R4: planted faults that the check must find, and clean runs that it must pass."""

import numpy as np

import keras_pergrad as pg
from keras_pergrad.engines import Engine
from tests import planted
from tests.cases import Case, make_case, set_dtype
from tests.figures._figure import Figure
from tests.planted import Planted
from tests.problems import by_name

MODELS = ("dense", "conv2d", "lstm", "transformer")
# (fault, dtype), on each of the models.
FAULTS: dict[str, tuple[Engine, str]] = {
    "one variable × (1 + 1e-6)": (Planted(planted.scaled(1 + 1e-6)), "float64"),
    "one variable × 1.001": (Planted(planted.scaled(1.001)), "float32"),
    "a bias dropped": (Planted(planted.dropped(1)), "float32"),
    "factor B": (Planted(planted.scaled_everywhere(4.0)), "float32"),
    "factor 1/B": (Planted(planted.scaled_everywhere(0.25)), "float32"),
    "sign": (Planted(planted.sign_flipped), "float32"),
    "samples swapped": (planted.Swapped(), "float32"),
    "two samples swapped": (planted.Swapped(only_two=True), "float32"),
    "noise of mean zero": (Planted(planted.zero_sum_noise), "float32"),
    "a sample dropped": (Planted(planted.one_sample_dropped), "float32"),
    "everything × 3 at a tiny loss": (Planted(planted.scaled_everywhere(3.0)), "tiny"),
    "stale weights": (planted.Stale(), "float32"),
    "last variable × 1.001": (Planted(planted.last_scaled(1.001)), "float32"),
    "a sample counted twice": (Planted(planted.one_sample_doubled), "float32"),
    "norms of one": (Planted(planted.normalized), "float32"),
    "rounded to half precision": (Planted(planted.in_half_precision), "float32"),
}
# Faults that need a model of their own: the name of the problem, and the engine.
SPECIAL: dict[str, tuple[str, Engine]] = {
    "a shared call counted once": ("dense_called_twice", planted.FirstUse()),
    "a shared input counted once": ("dense_on_two_inputs", planted.FirstUse()),
    "a tied kernel counted once": ("tied_transposed_kernel", planted.FirstUse()),
    "a transposed kernel": ("dense_called_twice", Planted(planted.transposed_kernel)),
    "a wrong mask divisor": ("mask", planted.WrongDivisor()),
}


def power_of_the_check(smoke: bool) -> Figure:
    """R4: every fault × every model, and clean batches of all of them."""
    models = MODELS[:2] if smoke else MODELS
    missed = [
        f"{name}: {fault}"
        for name in models
        for fault, (engine, dtype) in FAULTS.items()
        if _equivalent(_case(name, dtype), engine)
    ]
    for fault, (name, engine) in SPECIAL.items():
        if _equivalent(_case(name, "float32"), engine):
            missed.append(f"{name}: {fault}")
    runs = 20 if smoke else 1000
    alarms = _false_alarms(models, runs)
    total = len(models) * len(FAULTS) + len(SPECIAL)
    value = f"{total - len(missed)} of {total}, {len(alarms)} false alarms in {runs}"
    target = f"{total} of {total}, 0"
    return Figure(
        "planted faults found", value, target, not missed and not alarms, (*missed, *alarms)
    )


def _case(name: str, dtype: str) -> Case:
    set_dtype("float64" if dtype == "float64" else "float32")
    case = make_case(by_name(name))
    if dtype == "tiny":
        case.model.compile("sgd", case.model.loss, loss_weights=1e-6)
    return case


def _equivalent(case: Case, engine) -> bool:
    return pg.check_equivalence(case.model, *case.batch, engine=engine).equivalent


def _false_alarms(models: tuple[str, ...], runs: int) -> list[str]:
    """Clean runs on batches drawn with repetition, so that equal samples occur."""
    set_dtype("float32")
    cases = [(name, make_case(by_name(name))) for name in models]
    rng, alarms = np.random.default_rng(0), []
    for k in range(runs):
        name, case = cases[k % len(cases)]
        rows = rng.integers(0, len(case.x), size=len(case.x))
        report = pg.check_equivalence(case.model, case.x[rows], case.y[rows])
        alarms += [] if report.equivalent else [f"{name}: false alarm in run {k}"]
    return alarms
