"""What sample gradients cost: each engine's step against the plain training step of the same model.

    python benchmarks/engines.py [--models MLP CNN …] [--batches 32 128 512] [--rounds 15]

Runs are paired: in every round each step runs once after the other, and its time is divided by that
of the plain step in the same round. Printed are the median ratio and its quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from models import MODELS, Case
from paired import Run, compared, paired
from rich.console import Console
from rich.table import Table

import keras_pergrad as pg

Step = Callable[[tf.Tensor, tf.Tensor], object]
SLOW = ("vectorized",)  # asked for by name


def plain(model: keras.Model) -> Step:
    """A training step without metrics: forward, loss, backward and the update by Adam."""

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True), training=True)
        update(model, tape.gradient(loss, model.trainable_variables))
        return loss

    return step


def update(model: keras.Model, gradients: list) -> None:
    """Applies a gradient."""
    model.optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True)))


def norms(engine: str) -> Callable[[keras.Model], Step]:
    """A training step that also gives the norm of every sample's gradient."""

    def make(model: keras.Model) -> Step:
        def step(x, y):
            g = pg.per_sample_gradients(model, x, y, engine=engine)
            update(model, g.mean())
            return g.norms()

        return step

    return make


def by_variable(model: keras.Model) -> Step:
    """Norms by variable, and projections on the mean gradient."""

    def step(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="factored")
        update(model, g.mean())
        return g.norms(by="variable"), g.projections()

    return step


def clipped(model: keras.Model) -> Step:
    """A training step with the mean of clipped sample gradients."""

    def step(x, y):
        g = pg.per_sample_gradients(model, x, y, engine="factored")
        norms = g.norms()
        update(model, g.sum(tf.minimum(1.0, 1.0 / norms) / tf.cast(g.num_samples, norms.dtype)))
        return norms

    return step


STEPS: dict[str, Callable[[keras.Model], Step]] = {
    "plain": plain,
    "norms": norms("factored"),
    "norms by variable, projections": by_variable,
    "clipped mean": clipped,
    "vectorized": norms("vectorized"),
}


def compiled(name: str, case: Case) -> Step:
    """A step, traced for the batch."""
    step = STEPS[name](case.model)
    case.model.optimizer.build(case.model.trainable_variables)
    function = tf.function(step)
    return function.get_concrete_function(case.x, case.y)


def running(name: str, case: Case) -> Run:
    """A step of a case, until a result is there."""
    function = compiled(name, case)

    def run() -> object:
        return tf.nest.flatten(function(case.x, case.y))[-1].numpy()

    return run


def measure(options: argparse.Namespace) -> list[dict]:
    """One record for every batch size, model and step."""
    names = ["plain", *(step for step in options.steps if step != "plain")]
    records = []
    for batch in options.batches:
        for model in options.models:
            keras.utils.clear_session()
            case = MODELS[model](batch)
            runs = {name: running(name, case) for name in names}
            found = paired(runs, options.rounds)
            for name, seconds in found.items():
                record = {"batch": batch, "model": model, "step": name}
                record |= compared(seconds, found["plain"])
                records.append(record)
    return records


def table(records: list[dict], batch: int) -> Table:
    """The ratios of one batch size, a column a model."""
    here = [record for record in records if record["batch"] == batch]
    result = Table("step", title=f"Batch {batch}: ratio to the plain step, median (quartiles)")
    for model in dict.fromkeys(record["model"] for record in here):
        result.add_column(model, justify="right")
    for step in dict.fromkeys(record["step"] for record in here):
        result.add_row(step, *(cell(r) for r in here if r["step"] == step))
    return result


def cell(record: dict) -> str:
    """One record in words."""
    return "{ratio:.2f} ({low:.2f}-{high:.2f})".format(**record)


def machine() -> str:
    """Where it was measured."""
    model = Path("/proc/cpuinfo")
    lines = model.read_text().splitlines() if model.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores; "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}"
    )


def main() -> None:
    """Measures, prints tables, and writes what was measured where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = [name for name in MODELS if name != "wide MLP"]
    parser.add_argument("--models", nargs="+", default=usual, choices=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--steps", nargs="+", default=[s for s in STEPS if s not in SLOW])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    records, console = measure(options), Console(width=120)
    for batch in options.batches:
        console.print(table(records, batch))
    console.print(machine())
    if options.out:
        found = {"machine": machine(), "rounds": options.rounds, "records": records}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
