"""Whether the nodes can ever start the processes of a stage. Otherwise Ray waits for ever and says nothing.

Nodes that are still joining are waited for, and an autoscaler is asked for those that a stage needs, for
``runtime.wait_for_nodes_s`` at most. Nodes that other work uses are counted: that work ends.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count as numbers

from gmp_atl_dist import stopping
from gmp_atl_dist.config.runtime import RuntimeConfig
from gmp_atl_dist.config.workers import ProcessConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.nodes import cluster_nodes

_POLL_S = 2.0
_ROUNDING = 1e-6
_wait_s = RuntimeConfig().wait_for_nodes_s
_asked: dict[int, list[dict[str, float]]] = {}
"""Bundles of resources that the autoscaler is asked for, by request. Stages may wait side by side, and the
autoscaler knows the last request only, so each holds all of them."""
_requests = numbers()


def wait_for_nodes(seconds: float) -> None:
    """How long the stages of this process wait for nodes; 0 where the Ray of this process gets no more."""
    global _wait_s
    _wait_s = seconds


def demand_of(workers: ProcessConfig) -> dict[str, float]:
    """What one process asks for, by the names of Ray's resources."""
    return {"CPU": float(workers.cpus), "GPU": float(workers.gpus), **workers.resources}


def await_room(
    demand: Mapping[str, float], what: str, *, count: int = 1, wait_s: float | None = None
) -> None:
    """Return once the nodes offer what ``count`` processes ask for together, in use or not.

    Args:
        demand: ``CPU``, ``GPU`` and custom resources of a process, by their names in Ray.
        what: the work, in messages.
        count: processes that must run at the same time.
        wait_s: how long to wait; unless given, what :func:`wait_for_nodes` was told.

    Raises:
        WorkerError: the nodes do not offer it in time; names the demand and what there is.
        KeyboardInterrupt: the run was asked to stop.
    """
    demand = {name: amount for name, amount in demand.items() if amount}
    wait_s = _wait_s if wait_s is None else wait_s
    until_s, told = time.monotonic() + wait_s, False
    with _requested(demand, count) as request:
        while True:
            nodes = cluster_nodes()
            if not nodes or _processes(nodes, demand) >= count:
                return
            if time.monotonic() >= until_s:
                raise WorkerError(_message(nodes, demand, what, count, wait_s))
            if not told:
                asked = "; the autoscaler is asked for them" if request() else ""
                logging.getLogger(__name__).warning(
                    "%s: no nodes offer %s; waiting up to %g s for them%s",
                    *(what, _demanded(demand, count), wait_s, asked),
                )
                told = True
            stopping.check()
            time.sleep(min(_POLL_S, max(0.0, until_s - time.monotonic())))


def _processes(nodes: Sequence[Mapping[str, float]], demand: Mapping[str, float]) -> float:
    """How many processes with this demand the empty nodes hold."""
    if not demand:
        return math.inf
    return sum(
        min(int(node.get(name, 0.0) / amount + _ROUNDING) for name, amount in demand.items())
        for node in nodes
    )


@contextmanager
def _requested(demand: Mapping[str, float], count: int) -> Iterator[Callable[[], bool]]:
    """A function that asks the autoscaler for nodes, if there is one. The request ends with the block."""
    number = next(_requests)

    def request() -> bool:
        if not _autoscaled():
            return False
        _asked[number] = [dict(demand)] * count
        _ask_autoscaler()
        return True

    try:
        yield request
    finally:
        if _asked.pop(number, None):
            _ask_autoscaler()


def _ask_autoscaler() -> None:
    """Of all stages that wait. What it starts is kept by the processes of the stage, or goes when idle."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[bundle for bundles in _asked.values() for bundle in bundles])


def _autoscaled() -> bool:
    """Whether an autoscaler may add nodes; by the same keys as ``ray_api/gcs_probe.py``."""
    try:
        from ray import _raylet as raylet
        from ray.core.generated.autoscaler_pb2 import (
            ClusterConfig,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from ray.experimental.internal_kv import _internal_kv_get

        kept = raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()  # pyright: ignore[reportAttributeAccessIssue]
        config_key = raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode()  # pyright: ignore[reportAttributeAccessIssue]
        version_key = raylet.GCS_AUTOSCALER_V2_ENABLED_KEY.encode()  # pyright: ignore[reportAttributeAccessIssue]
        if told := _internal_kv_get(config_key, namespace=kept):
            groups = ClusterConfig.FromString(told).node_group_configs
            return any(group.max_count != 0 for group in groups)
        if _internal_kv_get(version_key, namespace=kept) == b"1":
            return True
        status = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
        # Version 1 reports also where it may add nothing; the types of nodes are then named for nodes.
        types = status.get("autoscaler_report", {}).get("active_nodes", {})
        return any(not name.startswith("node_") for name in types)
    except (AttributeError, ImportError, RuntimeError, ValueError):
        # Another release of Ray does not tell: Ray then decides, as without this check.
        return True


def _message(
    nodes: Sequence[Mapping[str, float]],
    demand: Mapping[str, float],
    what: str,
    count: int,
    wait_s: float,
) -> str:
    waited = f" after {wait_s:g} s (runtime.wait_for_nodes_s)" if wait_s else ""
    if count == 1:
        lack = f"a worker asks for {_words(demand)}, and no node of the cluster offers that"
    else:
        lack = (
            f"{count} workers of {_words(demand)} must run together, and the nodes of the cluster have "
            f"room for {_processes(nodes, demand):g}"
        )
    return f"{what}: {lack}{waited}: {_there(nodes)}; {_remedy(nodes, demand)}, or add such nodes"


def _demanded(demand: Mapping[str, float], count: int) -> str:
    return _words(demand) if count == 1 else f"{count} x ({_words(demand)})"


def _words(amounts: Mapping[str, float]) -> str:
    names = {"CPU": "cores", "GPU": "GPUs"}
    return ", ".join(f"{amount:g} {names.get(name, name)}" for name, amount in amounts.items())


def _there(nodes: Iterable[Mapping[str, float]]) -> str:
    """The nodes in words, equal ones once."""
    seen: dict[str, int] = {}
    for node in nodes:
        own = {k: v for k, v in node.items() if ":" not in k}
        text = _words({"CPU": own.pop("CPU", 0.0), "GPU": own.pop("GPU", 0.0), **own})
        seen[text] = seen.get(text, 0) + 1
    return "; ".join(f"{count} x ({text})" for text, count in seen.items())


def _remedy(nodes: Iterable[Mapping[str, float]], demand: Mapping[str, float]) -> str:
    if "GPU" in demand and not any(node.get("GPU") for node in nodes):
        return "set gpus = 0 in its section of [runtime]"
    return "ask for less in its section of [runtime]"
