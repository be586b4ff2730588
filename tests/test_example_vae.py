"""The data of `examples/vae.py`: MNIST's own files are read, and any other is refused."""

import gzip
import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "vae.py"


@pytest.fixture(scope="module")
def vae():
    """The example as a module; nothing is trained."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("example_vae", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _idx(values: np.ndarray, type_code: int = 0x08) -> bytes:
    """LeCun's format: two zeros, a type, the rank, the sizes in four bytes each, the data."""
    head = struct.pack(">HBB", 0, type_code, values.ndim)
    return head + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def _write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content))
    return path


def _mnist(folder: Path, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Four tiny files as MNIST has them; the test files have other values."""
    rng = np.random.default_rng(0)
    for part, size in (("t10k", 3), ("train", count)):
        images = rng.integers(0, 256, (size, 28, 28), dtype="uint8")
        labels = rng.integers(0, 10, size, dtype="uint8")
        _write(folder, f"{part}-images-idx3-ubyte.gz", _idx(images))
        _write(folder, f"{part}-labels-idx1-ubyte.gz", _idx(labels))
    return images, labels


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4)], ids=str)
def test_an_idx_file_is_read_as_it_was_written(vae, tmp_path, shape):
    values = np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")
    found = vae.read_idx(_write(tmp_path, "values.gz", _idx(values)))
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found, values)


def test_the_training_images_are_loaded_between_zero_and_one(vae, tmp_path):
    images, labels = _mnist(tmp_path)
    found, digits = vae.load_mnist(tmp_path)
    assert found.shape == (6, 28, 28, 1) and found.dtype == "float32"
    # Each of 256 values is a float32 rounded once.
    np.testing.assert_allclose(found[..., 0], images / 255, rtol=1e-6)
    np.testing.assert_array_equal(digits, labels)


def test_what_is_no_idx_file_is_refused_by_name(vae, tmp_path):
    values = np.zeros((2, 3), "uint8")
    integers = _write(tmp_path, "integers.gz", _idx(values, type_code=0x0C))
    other = _write(tmp_path, "other.gz", b"PK" + _idx(values)[2:])
    for path in (integers, other):
        with pytest.raises(ValueError, match=r"(?s)idx.*Received.*" + path.name):
            vae.read_idx(path)


def test_a_file_that_ends_too_early_or_is_not_compressed_is_refused(vae, tmp_path):
    cut = _write(tmp_path, "cut.gz", _idx(np.zeros((4, 5), "uint8"))[:-3])
    with pytest.raises(ValueError, match="reshape"):
        vae.read_idx(cut)
    plain = tmp_path / "plain.gz"
    plain.write_bytes(_idx(np.zeros(3, "uint8")))
    with pytest.raises(gzip.BadGzipFile):
        vae.read_idx(plain)


def test_a_folder_without_the_files_is_refused(vae, tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images"):
        vae.load_mnist(tmp_path)


@pytest.mark.slow  # two trainings of a convolutional model of 28 x 28 pixels
def test_the_whole_script_runs_on_the_files(vae, tmp_path, monkeypatch, capsys):
    _mnist(tmp_path, count=24)
    given = ["--data", "mnist", "--data-dir", str(tmp_path), "--short", "--epochs", "2"]
    given += ["--batch-size", "8", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["vae.py", *given])
    vae.main()
    assert "is the batch gradient" in " ".join(capsys.readouterr().out.split())
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
