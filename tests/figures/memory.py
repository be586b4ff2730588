"""R13 and R16: the memory budget, and memory that is not corrupted."""

import re

import numpy as np

import keras_pergrad as pg
from tests.cases import make_case, set_dtype
from tests.figures._figure import Figure
from tests.problems import by_name
from tests.processes import run_code, run_module

ENGINES = ("loop", "vectorized", "jacobian", "factored")
# What is in memory while the norms are computed, less what was before; looked at every 2 ms.
PEAK = """
import gc, resource, threading, time
import numpy as np, keras
import keras_pergrad as pg
from keras import layers
model = keras.Sequential({chain})
model.compile("sgd", "mse")
rng = np.random.default_rng(0)
x, y = rng.normal(size=({size}, *model.input_shape[1:])), rng.normal(size=({size}, 32))
seen, done = [], threading.Event()

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize()

def watch():
    while not done.is_set():
        seen.append(resident())
        time.sleep(0.002)

pg.per_sample_gradients(model, x[:2], y[:2], engine="{engine}", memory_budget={budget}).norms()
gc.collect()
base = resident()
threading.Thread(target=watch).start()
try:
    pg.per_sample_gradients(model, x, y, engine="{engine}", memory_budget={budget}).norms()
finally:
    done.set()
print("used", max(seen) - base)
"""

# Activations are most of what the first needs, and gradients of what the second does.
MODELS = {
    "convolutions": (
        "[keras.Input((32, 32, 3)), layers.Conv2D(16, 3, activation='relu'), "
        "layers.Conv2D(16, 3, activation='relu'), layers.Flatten(), layers.Dense(32)]",
        96,
    ),
    "wide layers": (
        "[keras.Input((256,)), layers.Dense(512, 'relu'), layers.Dense(512, 'relu'), "
        "layers.Dense(32)]",
        256,
    ),
}
CHUNKED = ("conv2d", "lstm_after_dense", "embedding_repeated_ids", "two_dropouts", "mask")


def memory_budget(smoke: bool) -> Figure:
    """R13: what is used of a budget, and whether chunks change a result."""
    # Below 2**28 the graph itself, about 60 MiB whatever the chunks, would be most of what is seen.
    budgets = [2**28] if smoke else [2**28, 2**29]
    ratios = {
        f"{engine}, {name}, {budget / 2**20:.0f} MiB": _used(engine, *MODELS[name], budget) / budget
        for engine in ("vectorized", "factored")
        for name in MODELS
        for budget in budgets
    }
    errors = {name: _chunk_error(name) for name in CHUNKED[: 2 if smoke else None]}
    missed = [f"{name}: {ratio:.2f} ×" for name, ratio in ratios.items() if ratio > 1.25]
    missed += [f"{name}: chunks {error:.1e}" for name, error in errors.items() if error > 1e-12]
    worst, error = max(ratios.values()), max(errors.values())
    value = f"{worst:.2f} × the budget, chunks differ by {error:.1e}"
    return Figure("memory budget", value, "1.25 ×, 1e-12", not missed, tuple(missed))


def _used(engine: str, chain: str, size: int, budget: int) -> float:
    settings = {"engine": engine, "chain": chain, "size": str(size), "budget": str(budget)}
    code = PEAK
    for name, value in settings.items():
        code = code.replace("{" + name + "}", value)
    result = run_code(code)
    found = re.search(r"used (\d+)", result.stdout)
    return float(found[1]) if found else float("inf")


def _chunk_error(name: str) -> float:
    """The largest relative difference of norms with chunks of 1 … B samples."""
    set_dtype("float64")
    case = make_case(by_name(name))
    g = pg.per_sample_gradients(case.model, *case.batch, engine="vectorized")
    whole, errors = g.squared_norms().numpy(), []
    for chunk in range(1, len(case.x) + 1):
        budget = chunk * g.blocks.bytes_each
        parts = pg.per_sample_gradients(
            case.model, *case.batch, engine="vectorized", memory_budget=budget
        )
        assert parts.blocks.chunk == chunk
        errors.append(np.max(np.abs(parts.squared_norms().numpy() / whole - 1)))
    return float(max(errors))


def memory_corruption(smoke: bool) -> Figure:
    """R16: each engine in processes of its own on the shapes that corrupt memory."""
    repeats = ("1", 1) if smoke else ("5", 4)
    failed = []
    for engine in ENGINES:
        for attempt in range(repeats[1]):
            result = run_module("tests.crash_shapes", engine, repeats[0])
            if result.returncode:
                failed.append(f"{engine}, attempt {attempt}: exit {result.returncode}")
    total = len(ENGINES) * repeats[1]
    value = f"{len(failed)} of {total} processes"
    return Figure("crashes and wrong numbers", value, f"0 of {total}", not failed, tuple(failed))
