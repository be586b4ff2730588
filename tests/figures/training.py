"""R6, R9 and R11: what `fit` does with measuring on and off."""

import gc
import itertools
import resource
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_pergrad as pg
from tests import twins
from tests.cases import set_dtype
from tests.figures._figure import Figure
from tests.problems import floats

RECORD = {
    engine: pg.PerSample(engine, check="always", on_failure="record")
    for engine in ("factored", "vectorized")
}
WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "steps": {"steps_per_execution": 2}}


def observer_effect(smoke: bool) -> Figure:
    """R6: weights, optimizer, statistics, seeds, metrics and history, bit by bit."""
    set_dtype("float32")
    tf.config.experimental.enable_op_determinism()
    seeds = range(1 if smoke else 5)
    missed = []
    for engine, make in itertools.product(RECORD, (twins.dense, twins.noisy)):
        for name, seed in itertools.product(WAYS, seeds):
            what = f"{engine} {make.__name__} {name} seed {seed}"
            missed += _differs(engine, make, seed, WAYS[name], what)
    total = len(RECORD) * 2 * len(WAYS) * len(seeds)
    value = f"{total - len(missed)} of {total} bit-identical"
    return Figure("observer effect", value, f"{total} of {total}", not missed, tuple(missed))


def _differs(engine: str, make, seed: int, way: dict, name: str) -> list[str]:
    options = {"optimizer": "adam", "metrics": ["mae"], "seed": seed, **way}
    plain = twins.trained(make, None, **options)
    measured = twins.trained(make, RECORD[engine], **options)
    try:
        twins.expect_bit_equal(plain, measured)
    except AssertionError:
        return [name]
    return []


def long_run(smoke: bool) -> Figure:
    """R9: memory after step 500, and traces, over many steps with partial batches."""
    steps = 2_000 if smoke else 20_000
    growth, traces = growth_in(steps, "sgd", per_sample=pg.PerSample(check=10))
    value = f"{growth:.1f} MiB in {steps} steps, {traces} traces"
    reached = growth <= 8 and traces <= 4
    return Figure("long run with partial batches", value, "8 MiB, 4 traces of 2 shapes", reached)


def growth_in(
    steps: int, optimizer: str, *, callbacks: Sequence = (), after: int = 500, **options
) -> tuple[float, int]:
    """How much memory grows after some step, in MiB, and how often a step was traced.

    Args:
        steps: of training, with partial batches.
        optimizer: the optimizer.
        callbacks: those of `fit`.
        after: the step from which on growth counts.
        options: of `compile`.
    """
    set_dtype("float32")
    Counted.traces = 0
    model = Counted([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    model.compile(optimizer, "mse", **options)
    memory = _MemoryAt(after)
    x, y = floats(18, 3, seed=1), floats(18, 2, seed=2)
    model.fit(x, y, batch_size=4, epochs=steps // 5, verbose=0, callbacks=[*callbacks, memory])
    gc.collect()
    return (_resident() - memory.bytes) / 2**20, Counted.traces


class Counted(pg.PerGradSequential):
    """Counts how often its training step is traced."""

    traces = 0

    def train_step(self, data):
        Counted.traces += 1
        return super().train_step(data)


class _MemoryAt(keras.callbacks.Callback):
    def __init__(self, step: int):
        super().__init__()
        self.step, self.seen, self.bytes = step, 0, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            gc.collect()
            self.bytes = _resident()


def _resident() -> int:
    """Bytes of this process that are in memory now (Linux), or were at most."""
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# (N, B): every remainder, a batch that is not full at all, and batches of one.
ROWS = ((4, 4), (5, 4), (6, 4), (7, 4), (1, 4), (3, 1))


def partial_batches(smoke: bool) -> Figure:
    """R11: N mod B in {0 … B - 1}, B = 1, B = 0, and several steps in one execution."""
    set_dtype("float32")
    tf.config.experimental.enable_op_determinism()
    missed = []
    for rows, batch in ROWS:
        for steps in (1, 2) if smoke else (1, 2, 3):
            missed += _rows_differ(rows, batch, steps)
    g = pg.per_sample_gradients(_small(), floats(0, 3), floats(0, 2))
    empty = g.norms().shape == (0,) and not any(np.any(m) for m in g.mean())
    missed += [] if empty else ["B = 0"]
    total = len(ROWS) * (2 if smoke else 3) + 1
    value, target = f"{len(missed)} of {total} differ", f"0 of {total}"
    return Figure("partial and empty batches", value, target, not missed, tuple(missed))


def _small() -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def _rows_differ(rows: int, batch: int, steps: int) -> list[str]:
    def fit(model):
        x, y, _ = twins.data()
        return model.fit(x[:rows], y[:rows], batch_size=batch, epochs=2, verbose=0)

    options = {"optimizer": "adam", "fit": fit, "steps_per_execution": steps}
    plain = twins.trained(twins.dense, None, **options)
    measured = twins.trained(twins.dense, pg.PerSample(check="always"), **options)
    try:
        twins.expect_bit_equal(plain, measured)
    except AssertionError:
        return [f"{rows} rows in batches of {batch}, {steps} steps per execution"]
    return []
