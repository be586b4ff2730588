"""One dtype per test, and everything global put back afterwards."""

import collections
import gc
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

from tests.cases import set_dtype

# Two workers on two cores: more threads per process only fight for them.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def pytest_addoption(parser):
    """`pytest -m slow --every 12` runs each twelfth of the tests that are chosen."""
    parser.addoption("--every", type=int, default=1, help="run each N-th of the chosen tests")


_thinned: collections.Counter[str] = collections.Counter()


def pytest_itemcollected(item):
    """Of the cases of a test with the mark `thinned(n)`, all but each n-th are slow."""
    mark = item.get_closest_marker("thinned")
    if mark is not None:
        test = item.nodeid.partition("[")[0]
        if _thinned[test] % mark.args[0]:
            item.add_marker(pytest.mark.slow)
        _thinned[test] += 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """After the marks have chosen."""
    every = config.getoption("--every")
    config.hook.pytest_deselected(items=[each for k, each in enumerate(items) if k % every])
    items[:] = items[::every]


def pytest_collection_finish(session):
    """What is imported stays, so that a collection takes a tenth of the time."""
    _freed()


def _freed() -> None:
    """Frees what is garbage; what is not is left out of later collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_keras():
    """float32 and seed 0 before every test; `tests.cases.set_dtype` changes it within one.

    What a long test leaves is freed at once: an iterator of `tf.data` that an error has left in the
    middle of an epoch is waited for when it is freed, about as long as it has lived.
    """
    start = time.perf_counter()
    set_dtype("float32")
    yield
    set_dtype("float32")
    if time.perf_counter() - start > 1:
        _freed()


@pytest.fixture
def float64():
    """Compute in double precision."""
    set_dtype("float64")


@pytest.fixture
def deterministic():
    """Bit-equal runs: deterministic kernels, switched off again afterwards."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    yield
    config.disable_op_determinism()
