"""Prints the scoreboard: `python tests/scoreboard.py [--smoke] [R4 R6 …]`.

Ends with 1 if a target is missed. `--smoke` takes below three minutes.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.figures import FIGURES, Figure


def main(arguments: list[str] | None = None) -> int:
    """Compute the figures that were asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="R2", help="all of them by default")
    parser.add_argument("--smoke", action="store_true", help="fewer cases")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    found = {}
    for name in track(options.figures or FIGURES, "figures", console=Console(stderr=True)):
        found[name] = timed(name, options.smoke)
    console.print(table(found))
    for name, (figure, _) in found.items():
        for case in figure.missed:
            console.print(f"{name}: {case}", markup=False)
    return int(not all(figure.reached for figure, _ in found.values()))


def timed(name: str, smoke: bool) -> tuple[Figure, float]:
    """The figure and the seconds it took."""
    begin = time.monotonic()
    return FIGURES[name](smoke), time.monotonic() - begin


def table(found: dict[str, tuple[Figure, float]]) -> Table:
    """One row a figure."""
    rows = Table("id", "figure", "found", "target", "", "seconds", title="Scoreboard")
    for name, (figure, seconds) in found.items():
        mark = "[green]reached[/]" if figure.reached else "[red]missed[/]"
        rows.add_row(name, figure.what, figure.value, figure.target, mark, f"{seconds:.0f}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
