"""What measuring adds to the first training step, which is traced, against plain Keras.

    python benchmarks/first_step.py [--models MLP CNN …] [--repeats 5]

Every first step is that of a new process, which has trained another small model before, so that
what TensorFlow does once is not counted. Plain Keras and each setting come in turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from engines import machine
from models import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_pergrad as pg

BATCH = 32
SETTINGS = {
    "plain": None,
    'aggregator="mean", check="off"': pg.PerSample(check="off", aggregator="mean"),
    'check="first"': pg.PerSample(),
}


def seconds_of_one(model: str, setting: str) -> float:
    """The seconds of a first step, in a process of its own."""
    arguments = [sys.executable, __file__, "--one", model, setting]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def print_one(model: str, setting: str) -> None:
    """What `seconds_of_one` reads."""
    _warm_up()
    case = MODELS[model](BATCH)
    if SETTINGS[setting] is not None:
        pg.attach(case.model, SETTINGS[setting])
    start = time.perf_counter()
    case.model.fit(case.x, case.y, batch_size=BATCH, epochs=1, verbose=0)
    print(time.perf_counter() - start)


def _warm_up() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((4, 3)), np.zeros((4, 1)), verbose=0)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = [name for name in MODELS if name != "wide MLP"]
    parser.add_argument("--models", nargs="+", default=usual, choices=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print_one(*options.one)
        return
    table = Table("", title=f"Seconds of the first step, batch {BATCH}: median (ratio to plain)")
    found: dict[str, dict[str, float]] = {}
    for model in track(options.models, "models", console=Console(stderr=True)):
        times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(options.repeats):
            for setting in SETTINGS:
                times[setting].append(seconds_of_one(model, setting))
        found[model] = {setting: statistics.median(each) for setting, each in times.items()}
        table.add_column(model, justify="right")
    for setting in SETTINGS:
        cells = [(found[m][setting], found[m][setting] / found[m]["plain"]) for m in found]
        table.add_row(setting, *(f"{seconds:.2f} ({ratio:.1f})" for seconds, ratio in cells))
    console = Console(width=120)
    console.print(table)
    console.print(machine())


if __name__ == "__main__":
    main()
