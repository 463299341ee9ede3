"""Starts a Ray on this machine, and waits for it longer than Ray does.

On a busy machine the processes of Ray may take more than the 30 s after which ``ray.init`` gives up. They are
then waited for, and started once more before the run ends. ``RAY_raylet_start_wait_time_s`` sets the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import WorkerError

WAIT_VARIABLE = "RAY_raylet_start_wait_time_s"
WAIT_S = 120.0
_RAYS_OWN_S = 30.0
"""Ray waits at least so long, whatever the variable says."""
_GCS_VARIABLE = "RAY_gcs_server_port_wait_time_s"
NO_SPARE_WORKERS = {"RAY_prestart_worker_first_driver": "0"}
"""Ray would start a worker per core at once. Ours have another environment and cannot use them."""
_ATTEMPTS = 2
_POLL_S = 0.5

Started = TypeVar("Started")


def start_ray(init: Callable[[], Started]) -> Started:
    """What ``init`` returns, which calls ``ray.init`` for a Ray of this machine; at most two attempts.

    Raises:
        WorkerError: Ray did not come up in time, twice.
    """
    wait_s = _wait_s()
    os.environ.setdefault(WAIT_VARIABLE, f"{wait_s:g}")
    os.environ.setdefault(_GCS_VARIABLE, str(max(1, round(wait_s))))
    for name, value in NO_SPARE_WORKERS.items():
        os.environ.setdefault(name, value)
    for attempt in range(1, _ATTEMPTS + 1):
        before = {process.pid for process in stopping.descendants()}
        try:
            with _patient(wait_s):
                return init()
        except Exception as e:
            if not _timed_out(e):
                raise
            _end_halfway_start(before)
            # Nobody waits a second time after a Ctrl-C.
            if attempt == _ATTEMPTS or stopping.requested() is not None:
                waited_s = max(wait_s, _RAYS_OWN_S)
                raise WorkerError(
                    f"Ray did not come up on this machine within {waited_s:g} s, in {attempt} attempts "
                    f"({_first_line(e)}); {WAIT_VARIABLE}={2 * waited_s:g} waits longer; or end other work "
                    f"on the machine, or set runtime.ray_address to a cluster that runs"
                ) from e
    raise AssertionError("every attempt returns or raises")


def _wait_s() -> float:
    try:
        return max(0.0, float(os.environ.get(WAIT_VARIABLE) or WAIT_S))
    except ValueError as e:
        raise WorkerError(
            f"{WAIT_VARIABLE}={os.environ[WAIT_VARIABLE]!r} is not a number of seconds; correct or unset it"
        ) from e


def _timed_out(error: Exception) -> bool:
    """Whether Ray gave up waiting. It raises a bare ``Exception`` then."""
    return isinstance(error, TimeoutError) or "timed out" in str(error).lower()


@contextmanager
def _patient(wait_s: float) -> Iterator[None]:
    """Within this block ``ray.init`` waits ``wait_s`` seconds for its own node.

    Ray's 30 s are a constant of its code. A release without that function keeps its own time.
    """
    import ray._private.services as services

    original: Callable[..., Any] | None = getattr(services, "get_node", None)
    if original is None:
        yield
        return
    until_s = 0.0

    def get_node(*args: Any, **kwargs: Any) -> Any:
        nonlocal until_s
        until_s = until_s or time.monotonic() + wait_s
        while True:
            try:
                return original(*args, **kwargs)
            except RuntimeError:
                # The node has not registered yet. Ray asks again, and then gives up by its own clock.
                if time.monotonic() >= until_s or stopping.requested() is not None:
                    raise
            time.sleep(_POLL_S)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = original


def _end_halfway_start(before: set[int]) -> None:
    """End the processes that the failed attempt left, so that the next one finds a free machine."""
    import ray

    # Ray may be half started, and its shutdown then fails. What is left is killed below.
    with suppress(Exception):
        ray.shutdown()
    stopping.kill([p for p in stopping.descendants() if p.pid not in before])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
