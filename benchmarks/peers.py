"""What sample gradients cost the peers, on the same models, in the same run as ours.

    python benchmarks/peers.py [--torch PYTHON] [--jax PYTHON] [--batches 32 128 512]

Opacus and `torch.func` run on PyTorch, `vmap(grad)` on JAX, each in processes of its own and of the
Python that has it. A ratio is to the plain training step of the same framework, with Adam, paired
and interleaved. The norms of four samples are compared with those of samples run alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from engines import machine
from models import MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).parent
TORCH = ("Opacus, hooks", "Opacus, ghost", "torch.func")
STEPS = ("norms", "clipped mean")
# float32, sums in another order: what is further off is another number.
EXACT = 1e-3
INSTALL = {"torch": "pip install torch opacus", "jax": "pip install jax"}


def ours(model: str, batch: int, rounds: int) -> list[dict]:
    """The records of `engine="factored"`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        arguments = [sys.executable, str(HERE / "engines.py"), "--models", model, "--out", str(out)]
        arguments += ["--batches", str(batch), "--rounds", str(rounds), "--steps", *STEPS]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if result.returncode:
            return [{"step": step, "why": last_line(result.stderr)} for step in STEPS]
        records = json.loads(out.read_text())["records"]
    return [record for record in records if record["step"] in STEPS]


def theirs(python: str | None, script: str, arguments: list[str]) -> list[dict]:
    """The records of a peer, or why it has none."""
    framework = "jax" if "jax" in script else "torch"
    if python is None or not has(python, framework):
        why = f"not installed: {INSTALL[framework]}"
        return [{"step": step, "why": why} for step in STEPS]
    command = [python, str(HERE / script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return [{"step": step, "why": last_line(result.stderr)} for step in STEPS]
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def has(python: str, framework: str) -> bool:
    """Whether that Python can import it."""
    command = [python, "-c", f"import {framework}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def last_line(text: str) -> str:
    """What an error says."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no word"


def measure(options: argparse.Namespace) -> list[dict]:
    """One record for every batch size, model, peer and step."""
    rounds, records = str(options.rounds), []
    for batch in options.batches:
        for model in track(options.models, f"batch {batch}", console=Console(stderr=True)):
            found = {"keras_pergrad": ours(model, batch, options.rounds)}
            for peer in TORCH:
                asked = [peer, model, str(batch), "--rounds", rounds]
                found[peer] = theirs(options.torch, "peers_torch.py", asked)
            asked = [model, str(batch), "--rounds", rounds]
            found["JAX, vmap(grad)"] = theirs(options.jax, "peers_jax.py", asked)
            for peer, its in found.items():
                records += [{**each, "batch": batch, "model": model, "peer": peer} for each in its]
    return records


def table(records: list[dict], batch: int, step: str) -> Table:
    """The ratios at one batch size, a column a model."""
    here = [r for r in records if (r["batch"], r["step"]) == (batch, step)]
    title = f"Batch {batch}, {step}: ratio to the plain step of the same framework"
    result = Table("", title=title)
    for model in dict.fromkeys(record["model"] for record in here):
        result.add_column(model, justify="right")
    for peer in dict.fromkeys(record["peer"] for record in here):
        result.add_row(peer, *(cell(r) for r in here if r["peer"] == peer))
    return result


def cell(record: dict) -> str:
    """A median with its quartiles; what is wrong with it, or why there is none."""
    if "why" in record:
        return record["why"] if "not installed" in record["why"] else "refused"
    text = "{ratio:.2f} ({low:.2f}-{high:.2f})".format(**record)
    return text if record.get("error", 0) <= EXACT else f"{text} WRONG by {record['error']:.1g}"


def main() -> None:
    """Measures, prints tables, and writes what was measured where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", metavar="PYTHON", help="that has PyTorch and Opacus")
    parser.add_argument("--jax", metavar="PYTHON", help="that has JAX")
    usual = [name for name in MODELS if name != "wide MLP"]
    parser.add_argument("--models", nargs="+", default=usual, choices=usual)
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    records, console = measure(options), Console(width=140)
    for batch in options.batches:
        for step in STEPS:
            console.print(table(records, batch, step))
    for record in records:
        if "why" in record and "not installed" not in record["why"]:
            console.print("{peer}, {model}, {step}: {why}".format(**record), markup=False)
    console.print(machine())
    if options.out:
        found = {"machine": machine(), "rounds": options.rounds, "records": records}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
