"""Two workers on the loopback address: the same weights as plain Keras, and exact norms.

By `strategy.run(model.train_step, ...)`: plain Keras 3.15 has no `fit` there. It stops
where it adds up a tuple of values of replicas, and again where it averages its logs.
"""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.subprocess


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _start(index: int, addresses: list[str]) -> subprocess.Popen:
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.worker"],
        cwd=ROOT,
        env={**os.environ, **quiet, "TF_CONFIG": json.dumps(cluster)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_workers_train_as_plain_keras_does():
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(2)]
    workers = [_start(index, addresses) for index in range(2)]
    try:
        results = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, results, strict=True):
        assert worker.returncode == 0, errors[-3000:]
    one, other = ([line for line in out.splitlines() if "weights" in line] for out, _ in results)
    assert one == other and len(one) == 1
