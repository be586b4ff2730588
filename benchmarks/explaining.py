"""What a check by hand costs, and a check with its explanation, in plain training steps.

    python benchmarks/explaining.py [--models MLP CNN …] [--batch 512] [--repeats 5]

Plain steps, checks that pass and checks that fail (the same model with a loss that sums over the
batch) come in turns. A check is made eagerly and traced anew at each call, which takes seconds
however small the model is; a plain step was traced before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from engines import machine
from models import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_pergrad as pg

ROWS = ("plain step", "check that passes", "check that fails, explained")


def turns(name: str, batch: int) -> dict[str, Callable]:
    """What is timed of a model."""
    keras.utils.set_random_seed(0)  # a unit on its kink makes float64 decide, which takes longer
    case = MODELS[name](batch)
    failing = MODELS[name](batch)
    failing.model.compile("sgd", _summed(failing.model.loss))
    return {
        ROWS[0]: lambda: case.model.train_on_batch(case.x, case.y),
        ROWS[1]: lambda: pg.check_equivalence(case.model, case.x, case.y, engine="factored"),
        ROWS[2]: lambda: _explained(failing),
    }


def _summed(loss: keras.Loss) -> keras.Loss:
    return type(loss).from_config({**loss.get_config(), "reduction": "sum"})


def _explained(case) -> None:
    report = pg.check_equivalence(case.model, case.x, case.y, engine="factored")
    if not report.causes:
        raise RuntimeError(f"A cause was to be explained. Received: {report}")


def seconds(timed: dict[str, Callable], repeats: int) -> dict[str, float]:
    """The median of each, in turns, the first of which is not counted."""
    found: dict[str, list[float]] = {row: [] for row in ROWS}
    for turn in range(repeats + 1):
        for row, do in timed.items():
            start = time.perf_counter()
            do()
            if turn:
                found[row].append(time.perf_counter() - start)
    return {row: statistics.median(each) for row, each in found.items()}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["MLP", "CNN", "LSTM", "ResNet"])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    title = f"Seconds, batch {options.batch}: median (plain steps)"
    table = Table("", *options.models, title=title)
    columns = {}
    for name in track(options.models, "models", console=Console(stderr=True)):
        columns[name] = seconds(turns(name, options.batch), options.repeats)
    for row in ROWS:
        cells = [(each[row], each[row] / each[ROWS[0]]) for each in columns.values()]
        table.add_row(row, *(f"{took:.3f} ({ratio:.0f})" for took, ratio in cells))
    console = Console(width=110)
    console.print(table)
    console.print(machine())


if __name__ == "__main__":
    main()
