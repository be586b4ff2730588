"""TensorFlow 2.19 to 2.21 corrupts memory in a batched matmul under oneDNN; not through us."""

import pytest

from tests.processes import run_module


@pytest.mark.thinned(3)
@pytest.mark.subprocess
@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian"])
def test_no_crash_and_right_numbers_with_the_defaults_of_tensorflow(engine):
    """Repeated, as memory that is corrupted may take several runs to show."""
    result = run_module("tests.crash_shapes", engine, "3")
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("engine", ["loop", "vectorized", "jacobian"])
def test_in_several_processes(engine, attempt):
    result = run_module("tests.crash_shapes", engine, "3")
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
