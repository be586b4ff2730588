"""A real browser without a window, Chromium in Qt, in a process of its own: `PyQt6-WebEngine`.

Run as a program, it opens a page, runs scripts in it one after another, and prints what each gave
as a line of JSON. A real mouse click is asked for as `{"click": selector}`, typing as
`{"type": text}`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_WINDOW = {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",  # it refuses to start as root otherwise
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu --no-sandbox",
}
PLACE = (
    "(() => {{ const e = document.querySelector({0}); e.scrollIntoView({{block: 'center'}}); "
    "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
)


def visit(path: Path, steps: list) -> list:
    """What each step gave: a script its value, a click and typed text None."""
    done = _run(json.dumps({"path": str(path), "steps": steps}))
    if done.returncode:
        raise RuntimeError(f"The browser ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def why_not() -> str | None:
    """Why no browser can be started here; None if one can."""
    done = _run(json.dumps({"path": None, "steps": ["1 + 1"]}))
    if done.returncode == 0 and done.stdout.strip().endswith("[2]"):
        return None
    lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return f'no browser (pip install "keras_pergrad[browser]"): {lines[-1]}'


def _run(wanted: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tests.browser"],
        input=wanted,
        cwd=ROOT,
        env={**os.environ, **NO_WINDOW},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def main() -> None:
    from PyQt6.QtCore import QEventLoop, QPoint, Qt, QTimer, QUrl
    from PyQt6.QtTest import QTest
    from PyQt6.QtWebEngineWidgets import QWebEngineView
    from PyQt6.QtWidgets import QApplication

    wanted = json.load(sys.stdin)
    application = QApplication(["browser"])
    view = QWebEngineView()
    view.resize(1200, 900)
    view.show()

    def waited(start):
        """What a function hands its callback, once it does."""
        loop, found = QEventLoop(), []
        start(lambda value: (found.append(value), loop.quit()))
        if not found:
            loop.exec()
        return found[0]

    def script(text):
        return waited(lambda done: view.page().runJavaScript(text, done))

    def pause(milliseconds):
        waited(lambda done: QTimer.singleShot(milliseconds, lambda: done(None)))

    def step(each):
        if isinstance(each, str):
            return script(each)
        target = view.focusProxy()
        if "click" in each:
            x, y = script(PLACE.format(json.dumps(each["click"])))
            QTest.mouseClick(target, Qt.MouseButton.LeftButton, pos=QPoint(int(x), int(y)))
        else:
            QTest.keyClicks(target, each["type"])
        pause(150)
        return None

    def opened(done):
        view.loadFinished.connect(done)
        if wanted["path"] is None:
            view.setHtml("<title>empty</title>")
        else:
            view.load(QUrl.fromLocalFile(wanted["path"]))

    if not waited(opened):
        raise SystemExit("The page cannot be loaded.")
    pause(200)
    print(json.dumps([step(each) for each in wanted["steps"]]), flush=True)
    application.processEvents()
    os._exit(0)  # Qt's own end waits for processes that are gone already


if __name__ == "__main__":
    main()
