"""Every error of the package ends in what was received: read off the source, raise by raise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_pergrad

PACKAGE = Path(keras_pergrad.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# "file: function" → why its message says nothing of what was received. None today.
WITHOUT: dict[str, str] = {}
# It never reaches a user: its message is the reason of a fallback in `summary()`.
INTERNAL = "NoSiteError"


def _raised(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The function, and each call of an error class in it: raised here, or returned to a raise."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for made in map(_made, ast.walk(function)):
                error = isinstance(made, ast.Call) and _name(made).endswith("Error")
                if error and _name(made) != INTERNAL:
                    yield function.name, made


def _made(node: ast.AST) -> ast.expr | None:
    """What a raise or a return is given."""
    if isinstance(node, ast.Raise):
        return node.exc
    return node.value if isinstance(node, ast.Return) else None


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", None) or getattr(call.func, "attr", "")


def _words(message: ast.expr) -> str | None:
    """The literal text of a message; None where it is a name, or another function's answer."""
    if isinstance(message, ast.Constant):
        return message.value if isinstance(message.value, str) else None
    if isinstance(message, ast.JoinedStr):
        return "".join(part.value for part in message.values if isinstance(part, ast.Constant))
    if isinstance(message, ast.BinOp) and isinstance(message.op, ast.Add):
        sides = _words(message.left), _words(message.right)
        return None if sides == (None, None) else "".join(side or "" for side in sides)
    return None


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """Place and literal text of each error message in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function, call in _raised(tree):
        words = _words(call.args[0]) if call.args else ""
        if words is not None:
            yield f"{path.relative_to(PACKAGE).as_posix()}: {function}", words


def _without_received(path: Path) -> set[str]:
    return {place for place, words in _messages(path) if "Received" not in words}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_message_says_what_was_received(path):
    missing = sorted(_without_received(path) - WITHOUT.keys())
    assert not missing, f"messages without 'Received': {missing}"


def test_every_exception_to_the_rule_is_still_one():
    found = {place for path in FILES for place in _without_received(path)}
    assert WITHOUT.keys() <= found
    assert all(WITHOUT.values())


def test_the_search_finds_messages_of_every_form(tmp_path):
    """Raised and returned; plain, formatted and added; and not those of other objects."""
    code = """
def plain(): raise ValueError("a")
def formatted(): raise errors.DataError(f"b {plain!r}")
def added(): raise DataError("c" + f"d {plain}" + plain)
def returned(): return DataError("e")
def empty(): raise DataError()
def told(): raise DataError(f"f. Received: {plain}.")
def passed_on(report): raise EquivalenceError(report)
def other(): return str("g")
"""
    path = tmp_path / "code.py"
    path.write_text(code, encoding="utf-8")
    found = dict(_raised(ast.parse(code)))
    assert set(found) == {"plain", "formatted", "added", "returned", "empty", "told", "passed_on"}
    words = {name: _words(call.args[0]) for name, call in found.items() if call.args}
    assert words == {
        "plain": "a",
        "formatted": "b ",
        "added": "cd ",
        "returned": "e",
        "told": "f. Received: .",
        "passed_on": None,
    }


def test_the_search_sees_the_package():
    """Some thirty errors have a literal message; a search that finds none proves nothing."""
    assert sum(1 for path in FILES for _ in _messages(path)) > 25
