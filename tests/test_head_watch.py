"""A head of Ray that is lost while a run works: the run ends with a message, in limited time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime import head_watch
from gmp_atl_dist.runtime.head_watch import HeadWatch

SETTINGS = bytes(3) + b"\x04" + bytes(5)
LOST_AFTER_S = 1.0


class _Head:
    """A server that says what a server of gRPC says first, as long as it is up."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.up = True
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    if self.up:
                        connection.sendall(SETTINGS)
                        connection.recv(100)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Head, list[str]]]:
    monkeypatch.setattr(head_watch, "_LOST_AFTER_S", LOST_AFTER_S)
    monkeypatch.setattr(head_watch, "_LOOK_EVERY_S", 0.1)
    head, said = _Head(), list[str]()
    watch = HeadWatch(head.address, said.append)
    try:
        yield head, said
    finally:
        watch.close()
        head.close()


def test_a_lost_head_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as (head, said):
        time.sleep(2 * LOST_AFTER_S)
        assert said == []
        head.up = False
        until_s = time.monotonic() + 60
        while not said and time.monotonic() < until_s:
            time.sleep(0.05)
    assert len(said) == 1
    assert said[0].startswith(f"the head of Ray at {head.address} has not answered for ")
    assert "run the same command again to continue" in said[0]


def test_a_head_that_is_back_in_time_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as (head, said):
        for _ in range(3):
            head.up = False
            time.sleep(LOST_AFTER_S / 2)
            head.up = True
            time.sleep(LOST_AFTER_S / 2)
        time.sleep(LOST_AFTER_S)
        assert said == []


_LOSES_ITS_HEAD = """
import time
import ray
from ray.cluster_utils import Cluster
from gmp_atl_dist import runtime
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.runtime import head_watch

head_watch._LOST_AFTER_S = 5.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
with runtime.RayConnection(RuntimeConfig(ray_address=cluster.address)) as connection:
    connection.open()
    waits = ray.remote(lambda: time.sleep(600)).remote()
    cluster.head_node.all_processes["gcs_server"][0].process.kill()
    ray.get(waits)
"""


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_driver_whose_head_is_killed_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOSES_ITS_HEAD], capture_output=True, text=True, check=False
    )
    assert done.returncode == WorkerError.exit_code, done.stderr[-2000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the head of Ray at " in line
    assert "finished stages, parts and checkpoints are kept" in line
