"""The README's example prints what the README shows."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w‖])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TIMES = re.compile(r"\d+m?s - \d+m?s/step")
ROUNDING = 1e-6  # what the report measures of float32: another machine rounds otherwise


def _block(language: str) -> str:
    """The first block of a language."""
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def _words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    text = TIMES.sub("TIMES", text)
    return NUMBER.sub("#", text).replace("─", "").split(), [float(n) for n in NUMBER.findall(text)]


def _agree(shown: float, printed: float) -> bool:
    if abs(shown) < ROUNDING:
        return abs(printed) < ROUNDING
    return printed == pytest.approx(shown, rel=0.01)


def _differences(shown: str, printed: str) -> list[str]:
    (words, expected), (same, found) = _words_and_numbers(shown), _words_and_numbers(printed)
    if words != same or len(expected) != len(found):
        return [f"the words are: {' '.join(same)}"]
    pairs = zip(expected, found, strict=True)
    return [f"{a} is shown, {b} is printed" for a, b in pairs if not _agree(a, b)]


def test_the_example_prints_what_is_shown(capsys):
    pytest.importorskip("sklearn")
    exec(compile(_block("python"), "README.md", "exec"), {})
    assert not _differences(_block("text"), capsys.readouterr().out)


@pytest.mark.parametrize(
    ("shown", "instead"),
    [
        ("loss: 2.1658", "loss: 2.2658"),
        ("digits/dense/kernel", "dense/kernel"),
        ("pass   6.08e-08", "pass   6.08e-05"),
        ("3.660127 ", "3.560127 "),
        ("Epoch 2/2\n", ""),
    ],
)
def test_the_comparison_finds_what_differs(shown, instead):
    text = _block("text")
    assert shown in text and not _differences(text, text)
    assert _differences(text, text.replace(shown, instead, 1))
