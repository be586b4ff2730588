"""What measuring costs in `fit`: each setting against plain Keras, in paired and interleaved runs.

    python benchmarks/overhead.py [--repeats 5]

Prints the median ratio of epoch times and its spread. The first epoch of every model is a warm-up
and not counted: it traces, and it holds the one checked step of `check="first"`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import keras_pergrad as pg

BATCH = 128
SETTINGS = {
    "plain keras.Sequential": "plain",
    "per_sample=None": None,
    'check="first"': True,
    "check=50": pg.PerSample(check=50),
    'aggregator="mean", factored': pg.PerSample("factored", check="off", aggregator="mean"),
    'aggregator="mean", vectorized': pg.PerSample("vectorized", check="off", aggregator="mean"),
    'aggregator="mean", loop': pg.PerSample("loop", check="off", aggregator="mean"),
}


def mlp() -> list[layers.Layer]:
    """784-512-512-10."""
    return [
        keras.Input((28, 28, 1)),
        layers.Flatten(),
        layers.Dense(512, "relu"),
        layers.Dense(512, "relu"),
        layers.Dense(10),
    ]


def cnn() -> list[layers.Layer]:
    """Two strided convolutions and a dense layer."""
    return [
        keras.Input((28, 28, 1)),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(10),
    ]


def lstm() -> list[layers.Layer]:
    """64 units over 28 steps."""
    return [keras.Input((28, 28, 1)), layers.Reshape((28, 28)), layers.LSTM(64), layers.Dense(10)]


def compiled(build, setting) -> keras.Model:
    """A model, compiled as the setting says."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if setting == "plain":
        model = keras.Sequential(build())
        model.compile("adam", loss)
    else:
        model = pg.PerGradSequential(build())
        model.compile("adam", loss, per_sample=setting)
    return model


def ratios(build, steps: int, repeats: int) -> dict[str, list[float]]:
    """Per setting, the epoch times over those of plain Keras in the same round."""
    random = np.random.default_rng(0)
    images = random.random((BATCH * steps, 28, 28, 1), dtype="float32")
    labels = random.integers(0, 10, BATCH * steps)
    models = {name: compiled(build, setting) for name, setting in SETTINGS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.fit(images, labels, batch_size=BATCH, verbose=0)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    plain = seconds["plain keras.Sequential"]
    return {
        name: [a / b for a, b in zip(times, plain, strict=True)] for name, times in seconds.items()
    }


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    table = Table("setting", title=f"Epoch time over plain Keras, batch {BATCH}: median (spread)")
    columns = {}
    for build in (mlp, cnn, lstm):
        table.add_column(build.__name__.upper(), justify="right")
        columns[build] = ratios(build, arguments.steps, arguments.repeats)
    for name in SETTINGS:
        cells = [columns[build][name] for build in columns]
        shown = [f"{statistics.median(c):.2f} ({min(c):.2f}-{max(c):.2f})" for c in cells]
        table.add_row(name, *shown)
    console = Console(width=100)
    console.print(table)
    cores = os.cpu_count()
    console.print(f"{platform.machine()}, {cores} cores, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
