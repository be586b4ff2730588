"""What a `GradientMonitor` costs in training, against plain Keras, in paired rounds.

    python benchmarks/monitoring.py [--models MLP CNN …] [--batch 128] [--rounds 9] [--steps 50]

In every round each trains for as many steps, on one batch that is in memory, by Keras' own train
function; with the monitor, what it makes of a step on the host is in the time. Tracing is not: it
comes once a `fit`, and is printed by itself.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from engines import machine
from models import MODELS
from paired import compared, paired
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_pergrad as pg

WAYS = [(level, every) for level in ("norms", "standard", "full") for every in (1, 50)]


class Training:
    """A model that trains on one batch, with a monitor or without.

    Args:
        name: of the model.
        batch: how many samples.
        way: level and `every` of a monitor, or None.
        steps: how many steps a round has.
    """

    def __init__(self, name: str, batch: int, way: tuple[str, int] | None, steps: int):
        case = MODELS[name](batch)
        self.model = case.model
        self.model.compile("adam", self.model.loss, jit_compile=False)
        self.data = tf.data.Dataset.from_tensors((case.x, case.y)).repeat(steps)
        self.steps = steps
        if way is not None:
            monitor = pg.callbacks.GradientMonitor(way[0], every=way[1])
            monitor.set_model(self.model)
        self.model.make_train_function()
        start = time.perf_counter()
        self.model.train_function(iter(self.data))
        self.first = time.perf_counter() - start

    def __call__(self) -> None:
        iterator = iter(self.data)
        for _ in range(self.steps):
            self.model.train_function(iterator)


def measured(name: str, batch: int, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Per way, the ratio of its time to plain Keras', and of its first step."""
    plain = Training(name, batch, None, steps)
    found = {}
    for level, every in WAYS:
        keras.utils.clear_session(free_memory=False)
        training = Training(name, batch, (level, every), steps)
        seconds = paired({"plain": plain, "monitored": training}, rounds)
        result = compared(seconds["monitored"], seconds["plain"])
        found[f"{level}, every={every}"] = result | {"first": training.first / plain.first}
    return found


def _shown(result: dict[str, float]) -> str:
    quartiles = f"{result['ratio']:.2f} ({result['low']:.2f}–{result['high']:.2f})"
    return f"{result['shortest']:.2f}, {quartiles}"


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["MLP", "CNN", "LSTM", "Transformer", "VAE"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    title = (
        f"Training with a monitor over plain Keras, batch {options.batch}: shortest over shortest, "
        "median (quartiles)"
    )
    table = Table("", *options.models, title=title)
    first = Table("", *options.models, title="The first step, traced, over plain Keras'")
    columns = {}
    for name in track(options.models, "models", console=Console(stderr=True)):
        columns[name] = measured(name, options.batch, options.steps, options.rounds)
    for level, every in WAYS:
        row = f"{level}, every={every}"
        cells = [columns[name][row] for name in options.models]
        table.add_row(row, *map(_shown, cells))
        first.add_row(row, *(f"{c['first']:.1f}" for c in cells))
    console = Console(width=110)
    console.print(table)
    console.print(first)
    console.print(machine())


if __name__ == "__main__":
    main()
