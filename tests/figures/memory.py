"""R13 and R16: the memory budget, and memory that is not corrupted."""

import re

import numpy as np

import keras_pergrad as pg
from tests.cases import make_case, set_dtype
from tests.figures._figure import Figure
from tests.problems import by_name
from tests.processes import run_code, run_module

ENGINES = ("loop", "vectorized", "jacobian")
# What is in memory while the norms are computed, less what was before; looked at every 2 ms.
PEAK = """
import gc, resource, threading, time
import numpy as np, keras
import keras_pergrad as pg
start = keras.Input((32, 32, 3))
hidden = keras.layers.Conv2D(16, 3, activation="relu")(start)
hidden = keras.layers.Flatten()(keras.layers.Conv2D(16, 3, activation="relu")(hidden))
model = keras.Model(start, keras.layers.Dense(32)(hidden))
model.compile("sgd", "mse")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(96, 32, 32, 3)), rng.normal(size=(96, 32))
seen, done = [], threading.Event()

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize()

def watch():
    while not done.is_set():
        seen.append(resident())
        time.sleep(0.002)

pg.per_sample_gradients(model, x[:2], y[:2], memory_budget={budget}).norms()
gc.collect()
base = resident()
threading.Thread(target=watch).start()
try:
    pg.per_sample_gradients(model, x, y, memory_budget={budget}).norms()
finally:
    done.set()
print("used", max(seen) - base)
"""


def memory_budget(smoke: bool) -> Figure:
    """R13: what is used of a budget, and whether chunks change a result."""
    # Below 2**28 the graph itself, about 60 MiB whatever the chunks, would be most of what is seen.
    ratios = [_used(budget) / budget for budget in ([2**28] if smoke else [2**28, 2**29])]
    error = _chunk_error()
    value = f"{max(ratios):.2f} × the budget, chunks differ by {error:.1e}"
    reached = max(ratios) <= 1.25 and error <= 1e-12
    return Figure("memory budget", value, "1.25 ×, 1e-12", reached)


def _used(budget: int) -> float:
    result = run_code(PEAK.replace("{budget}", str(budget)))
    found = re.search(r"used (\d+)", result.stdout)
    return float(found[1]) if found else float("inf")


def _chunk_error() -> float:
    """The largest relative difference of norms with chunks of 1 … B samples."""
    set_dtype("float64")
    case = make_case(by_name("conv2d"))
    whole = pg.per_sample_gradients(case.model, *case.batch).squared_norms().numpy()
    errors = []
    for budget in (1, 2**12, 2**13, 2**14, 2**15):
        g = pg.per_sample_gradients(case.model, *case.batch, memory_budget=budget)
        errors.append(np.max(np.abs(g.squared_norms().numpy() / whole - 1)))
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
