"""Layer names that can be read beside a picture."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 28


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the parts that all begin with, and without the middle of very long ones.

    Example:
        >>> short_names(["vae/encoder/dense", "vae/encoder/dense_1"])
        ['dense', 'dense_1']
    """
    parts = [path.split("/") for path in paths]
    shared = 0
    # The last part stays: a single layer has a name too.
    while all(len(each) > shared + 1 for each in parts) and (
        len({each[shared] for each in parts}) == 1
    ):
        shared += 1
    short = ["/".join(each[shared:]) for each in parts]
    cut = [shortened(each) for each in short]
    return cut if len(set(cut)) == len(set(short)) else short


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name without its middle, if it is longer; the end tells layers apart."""
    if len(name) <= longest:
        return name
    front = longest // 3
    return f"{name[:front]}…{name[len(name) - (longest - front - 1) :]}"
