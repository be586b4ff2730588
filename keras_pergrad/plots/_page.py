"""One HTML page of pictures and tables, with nothing outside of it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A browser that opens the page loads nothing but what is in it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Image:
    """A picture of a sample, in `[0, 1]`, and what it is of; no array where there is none."""

    pixels: np.ndarray | None
    alt: str


class Picture(NamedTuple):
    """A figure, its title, and what is in it for those who cannot see it."""

    title: str
    figure: Figure
    alt: str


class Table(NamedTuple):
    """Rows of numbers, words and images under names; some names are of words."""

    title: str
    about: str
    names: Sequence[str]
    rows: Sequence[Sequence[float | int | str | Image]]
    words: frozenset[str] = frozenset()


def page(title: str, lines: Sequence[str], parts: Sequence[Picture | Table]) -> str:
    """The HTML of a page: lines of text above, pictures and tables below in their order."""
    css, js = (
        files(__package__).joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "js")
    )
    links = "".join(f'<a href="#part{k}">{escape(part.title)}</a> ' for k, part in enumerate(parts))
    body = "\n".join(
        _picture(k, part) if isinstance(part, Picture) else _table(k, part)
        for k, part in enumerate(parts)
    )
    above = "".join(f"<p{_kind(k)}>{escape(line)}</p>" for k, line in enumerate(lines))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{above}\n<nav>{links}</nav></header>\n"
        f"<main>\n{body}\n</main>\n<script>\n{js}</script>\n</body>\n</html>\n"
    )


def _kind(line: int) -> str:
    return ' class="quiet"' if line == 0 else ' class="advice"'


def _picture(number: int, part: Picture) -> str:
    buffer = io.BytesIO()
    part.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return (
        f'<section id="part{number}"><h2>{escape(part.title)}</h2><figure>'
        f'<img alt="{escape(part.alt)}" src="{_inline("svg+xml", buffer.getvalue())}">'
        f"</figure></section>"
    )


def _table(number: int, part: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_words(name, part)}><button type="button">{escape(name)}</button></th>'
        for name in part.names
    )
    rows = "\n".join(f"<tr>{_cells(row, part)}</tr>" for row in part.rows)
    return (
        f'<section id="part{number}" class="table"><h2>{escape(part.title)}</h2>'
        f'<p class="quiet">{escape(part.about)}</p><div class="tools"><label>Search '
        f'<input type="search" aria-controls="table{number}"></label>'
        f'<output aria-live="polite"></output></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(part.title)}">'
        f'<table id="table{number}"><thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>'
        "</table></div></section>"
    )


def _cells(row: Sequence, part: Table) -> str:
    """The first is the head of its row."""
    made = []
    for k, (name, value) in enumerate(zip(part.names, row, strict=True)):
        tag, scope = ("th", ' scope="row"') if k == 0 else ("td", "")
        words = _words(name, part)
        made.append(
            f'<{tag}{scope}{words} data-sort="{escape(_key(value))}">{_shown(value)}</{tag}>'
        )
    return "".join(made)


def _words(name: str, part: Table) -> str:
    return ' class="words"' if name in part.words else ""


def _key(value: float | int | str | Image) -> str:
    """What a cell is sorted by; nothing where it is not known."""
    if isinstance(value, Image):
        return value.alt if value.pixels is not None else ""
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return repr(value) if isinstance(value, float) else str(value)


def _shown(value: float | int | str | Image) -> str:
    if isinstance(value, Image):
        return _thumbnail(value)
    if isinstance(value, float):
        return "–" if math.isnan(value) else "∞" if value == math.inf else f"{value:.4g}"
    return escape(str(value))


def _thumbnail(image: Image) -> str:
    if image.pixels is None:
        return "–"
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image.pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return f'<img alt="{escape(image.alt)}" src="{_inline("png", buffer.getvalue())}">'


def _inline(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
