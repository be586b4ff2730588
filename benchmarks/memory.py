"""What the tensors of a training step take at most: plain, and with the norms of sample gradients.

    python benchmarks/memory.py [--models MLP CNN …] [--batches 512] [--out FILE]

Each step runs three times in a process of its own, in which TensorFlow logs what it allocates and
frees; the peak is that of what is allocated at once, with the weights left out. What a process has
resident differs from that by what its allocator holds back, 64 MiB at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from engines import machine, running
from models import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table

STEPS = ("plain", "norms")
READY = "READY"
_KIND = re.compile(r"MemoryLog(?:Tensor|Raw)(Allocation|Deallocation) .*allocation_id")
_NUMBER = re.compile(r"(allocation_id|allocated_bytes|num_bytes): (\d+)")


def peak_mib(model: str, batch: int, step: str) -> float:
    """The most that TensorFlow had allocated at once, in MiB, after the model was made."""
    log = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "log_memory=2"}
    command = [sys.executable, __file__, "--one", model, str(batch), step]
    result = subprocess.run(
        command,
        env={**os.environ, **log},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=True,
    )
    return _peak(result.stdout.splitlines()) / 2**20


def _peak(lines: Iterable[str]) -> int:
    """Adds up a log of allocations, from the line that says `READY` on."""
    living: dict[str, int] = {}
    total = peak = 0
    ready = False
    for line in lines:
        ready |= line.startswith(READY)
        kind = _KIND.search(line)
        if kind is None:
            continue
        numbers = dict(_NUMBER.findall(line))
        name = numbers["allocation_id"]
        if kind[1] == "Deallocation":
            total -= living.pop(name, 0)
        elif ready and name not in living:
            living[name] = int(numbers.get("allocated_bytes", numbers.get("num_bytes", 0)))
            total += living[name]
        peak = max(peak, total)
    return peak


def run_one(model: str, batch: int, step: str) -> None:
    """What `peak_mib` reads the log of."""
    run = running(step, MODELS[model](batch))
    print(READY, flush=True)
    for _ in range(3):
        run()


def main() -> None:
    """Measures, prints a table, and writes what was measured where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[512])
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], int(options.one[1]), options.one[2])
        return
    table, records = Table("model", "batch", "plain, MiB", "with norms, MiB", "ratio"), []
    asked = [(model, batch) for batch in options.batches for model in options.models]
    for model, batch in track(asked, "models", console=Console(stderr=True)):
        plain, norms = (peak_mib(model, batch, step) for step in STEPS)
        records.append({"model": model, "batch": batch, "plain": plain, "norms": norms})
        shown = (f"{plain:.1f}", f"{norms:.1f}", f"{norms / plain:.2f}")
        table.add_row(model, str(batch), *shown)
    console = Console(width=100)
    console.print(table)
    console.print(machine())
    if options.out:
        found = {"machine": machine(), "records": records}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
