"""R6, R9, R10 and R12 with a monitor: what is watched trains as if it were not, and is resumed."""

import itertools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tests import twins
from tests.cases import set_dtype
from tests.figures._figure import Figure
from tests.figures.training import growth_in
from tests.monitored import PLAIN, Monitor, expect_untouched, plainly, shuffled, watched
from tests.resumed import killed_and_restored, stopped_and_loaded
from tests.test_monitor_replicas import two_replicas

WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "steps": {"steps_per_execution": 2}}
LEVELS = ("norms", "standard", "full")


def observer_effect_of_a_monitor(smoke: bool) -> Figure:
    """R6: plain models in whose `fit` a monitor measures, at every level."""
    set_dtype("float32")
    tf.config.experimental.enable_op_determinism()
    asked = list(
        itertools.product((twins.dense, twins.sampling, twins.noisy), WAYS, LEVELS, (1, 3))
    )
    return _counted("observer effect of a monitor", asked[:: 11 if smoke else 1], _is_untouched)


def _is_untouched(make: Callable, way: str, level: str, every: int) -> None:
    options = {"optimizer": "adam", "metrics": ["mae"], "fit": shuffled, **WAYS[way]}
    monitor = Monitor(level, every)
    found, _, history = watched(make, monitor=monitor, classes=PLAIN, **options)
    expect_untouched(plainly(make, **options), (found, history))
    assert monitor.records


def long_run_with_a_monitor(smoke: bool) -> Figure:
    """R9: as without, with records of every tenth step."""
    steps = 2_000 if smoke else 20_000
    monitor = Monitor("full", every=10)
    growth, traces = growth_in(steps, "sgd", callbacks=[monitor])
    value = f"{growth:.1f} MiB in {steps} steps, {traces} traces"
    reached = growth <= 8 and traces <= 4 and len(monitor.records) == steps // 10
    return Figure("long run with a monitor", value, "8 MiB, 4 traces of 2 shapes", reached)


def stopped_and_resumed(smoke: bool) -> Figure:
    """R10: half of them stopped and loaded, half killed between checkpoints and restored."""
    set_dtype("float32")
    tf.config.experimental.enable_op_determinism()
    count, rng = 1 if smoke else 10, random.Random(0)
    asked = [("loaded", rng.randint(1, 11), rng.randint(1, 4)) for _ in range(count)]
    asked += [("killed", rng.randint(1, 11), 1) for _ in range(count)]
    return _counted("stopped at a step, resumed", asked, _is_resumed)


def _is_resumed(how: str, k: int, every: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if how == "loaded":
            stopped_and_loaded(k, every, Path(folder))
        else:
            killed_and_restored(k, Path(folder))


def two_replicas_with_a_monitor(smoke: bool) -> Figure:
    """R12: even and uneven shards, and a replica without rows, record what one replica does."""
    rows = (16, 13, 9)[:: 3 if smoke else 1]
    asked = itertools.product(rows, ("pg.PerGradSequential", "keras.Sequential"))
    return _counted("two replicas with a monitor", list(asked)[:: 2 if smoke else 1], two_replicas)


def _counted(what: str, asked: list[tuple], expect: Callable[..., None]) -> Figure:
    """How many of the cases are as expected."""
    missed = []
    for case in asked:
        try:
            expect(*case)
        except AssertionError as error:
            shown = [getattr(each, "__name__", str(each)) for each in case]
            missed.append(f"{' '.join(shown)}: {str(error).strip().splitlines()[-1:]}")
    total = len(asked)
    value = f"{total - len(missed)} of {total} the same"
    return Figure(what, value, f"{total} of {total}", not missed, tuple(missed))
