"""Tables and numbers as text."""

from __future__ import annotations

from rich.console import Console, RenderableType


def render(*parts: RenderableType, width: int = 100) -> str:
    """What rich would print, as plain text of at most `width` columns."""
    console = Console(
        width=width, no_color=True, highlight=False, legacy_windows=False, markup=False, emoji=False
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def large(count: float) -> str:
    """Bytes in a unit that a person reads."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
