"""The examples of diagnostics keep what they promise: wrong labels are found, batch sizes told."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _run(name: str, tmp_path, monkeypatch, *arguments: str):
    """What `main` of an example answers; figures are written to `tmp_path`."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look their module up
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", str(tmp_path), *arguments])
    spec.loader.exec_module(module)
    return module.main()


def test_wrong_labels_are_found_in_a_few_epochs(tmp_path, monkeypatch):
    areas = _run("find_mislabelled", tmp_path, monkeypatch, "--quick")
    # 0.987 and more when this was written, from one seed.
    assert min(areas[name] for name in ("self_influence", "norm", "loss")) >= 0.95
    assert (tmp_path / "worst.png").stat().st_size > 10_000


def test_wrong_labels_are_found_as_the_example_says(tmp_path, monkeypatch, capsys):
    areas = _run("find_mislabelled", tmp_path, monkeypatch)
    assert areas["self_influence"] >= 0.99  # asked for: 0.9
    assert f"AUC {areas['self_influence']:.4f}  self_influence" in capsys.readouterr().out


def test_the_batch_sizes_are_measured_and_predicted(tmp_path, monkeypatch, capsys):
    results = _run("batch_size", tmp_path, monkeypatch, "--quick")
    for each in results:  # three batch sizes and one seed: of one magnitude, no more is claimed
        assert np.abs(np.log(each.noise["ratio of means"] / each.fit)) < np.log(4)
        assert (np.diff(each.curve.steps) <= 0).all()
    assert capsys.readouterr().out.count("off by at most") == 3 * len(results)
    assert (tmp_path / "batch_size.png").stat().st_size > 10_000
