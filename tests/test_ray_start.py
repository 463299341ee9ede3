"""A Ray that is slow to start is waited for, started once more, and then given up with the remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest
import ray
import ray._private.services as services

from gmp_atl_dist import runtime, stopping
from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.ray_start import WAIT_VARIABLE, start_ray

TIMED_OUT = (
    "The current node timed out during startup. This could happen because some of the raylet"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings of this shell. What the code under test sets is taken back as well."""
    for name in (WAIT_VARIABLE, "RAY_gcs_server_port_wait_time_s", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def failing(times: int, message: str = TIMED_OUT) -> tuple[Callable[[], str], list[int]]:
    """A start that leaves a process behind each time it fails."""
    left: list[int] = []

    def init() -> str:
        if len(left) < times:
            waiting = "import signal; signal.pause()"
            left.append(subprocess.Popen([sys.executable, "-c", waiting]).pid)
            raise Exception(message)
        return "started"

    return init, left


def test_a_second_attempt_starts_with_nothing_of_the_first() -> None:
    init, left = failing(1)
    assert start_ray(init) == "started"
    assert len(left) == 1
    psutil.Process(left[0]).wait(30)
    assert left[0] not in {process.pid for process in stopping.descendants()}


def test_two_attempts_that_time_out_are_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    init, left = failing(9)
    monkeypatch.setattr(ray, "init", lambda **_: init())
    with pytest.raises(WorkerError) as caught:
        runtime.RayConnection(RuntimeConfig()).open()
    assert caught.value.exit_code == 7
    assert "Ray did not come up on this machine within 120 s, in 2 attempts" in caught.value.message
    assert f"{WAIT_VARIABLE}=240 waits longer" in caught.value.message
    assert len(left) == 2


def test_another_error_is_not_tried_again() -> None:
    init, left = failing(9, "no such file")
    with pytest.raises(Exception, match="no such file"):
        start_ray(init)
    assert len(left) == 1
    stopping.kill([psutil.Process(left[0])])


def test_the_time_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "70")
    init, _ = failing(9)
    with pytest.raises(WorkerError, match=f"within 70 s.*{WAIT_VARIABLE}=140 waits longer"):
        start_ray(init)
    monkeypatch.setenv(WAIT_VARIABLE, "soon")
    with pytest.raises(WorkerError, match="'soon' is not a number of seconds"):
        start_ray(init)


def test_a_node_that_registers_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get_node(address: str, node: str) -> dict[str, str]:
        asked.append(node)
        if len(asked) < 3:
            raise RuntimeError("node not found")
        return {"address": address}

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr("gmp_atl_dist.runtime.ray_start._POLL_S", 0.0)
    # As ray.init asks: by the attribute of the module.
    assert start_ray(lambda: services.get_node("head", "n")) == {"address": "head"}
    assert services.get_node is get_node
    monkeypatch.setenv(WAIT_VARIABLE, "0")
    asked.clear()
    with pytest.raises(RuntimeError, match="node not found"):
        start_ray(lambda: services.get_node("head", "n"))
    assert len(asked) == 1
