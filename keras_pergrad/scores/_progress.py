"""A progress bar on the standard error, where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress(rows: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many rows came to be finished.

    Args:
        rows: how many there are in all, None for not known.
        shown: whether there is a bar.
    """
    looks = TextColumn("Scores"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    # Not in a notebook's own way, which warns where its widgets are not installed.
    console = Console(stderr=True, force_jupyter=False)
    with Progress(*looks, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task("", total=rows)
        yield lambda count: bar.update(task, advance=count)
