"""Python processes of their own, for crashes, import order and process-wide state."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_code(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -c code` at the root of the repository."""
    return _run(["-c", code], environment)


def run_module(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m module arguments` at the root of the repository."""
    return _run(["-m", module, *arguments], environment)


def _run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **quiet, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
