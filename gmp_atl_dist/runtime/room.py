"""Whether some node can ever start a process: without one, Ray waits for ever and says nothing.

A cluster with an autoscaler may add such a node when Ray asks for it, so it is left to Ray, and
``gmp-atl doctor`` compares the limits of its groups. Elsewhere nodes that are still joining are waited for.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping

from gmp_atl_dist.config.runtime import ProcessConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.runtime.nodes import cluster_nodes

JOIN_S = 300.0
"""How long a node may take to join a cluster that somebody else has started."""
_POLL_S = 2.0
_ROUNDING = 1e-6
_closed = False


def no_more_nodes(closed: bool) -> None:
    """Whether the Ray of this process gets no more nodes: it was started for this run, on this machine."""
    global _closed
    _closed = closed


def demand_of(workers: ProcessConfig) -> dict[str, float]:
    """What one process asks for, by the names of Ray's resources."""
    return {"CPU": float(workers.cpus), "GPU": float(workers.gpus), **workers.resources}


def await_room(demand: Mapping[str, float], what: str, wait_s: float | None = None) -> None:
    """Return once a node offers what one process asks for, in use or not.

    Args:
        demand: ``CPU``, ``GPU`` and custom resources of a process, by their names in Ray.
        what: the work, in messages.
        wait_s: how long to wait; unless given, 0 on a Ray of this machine, else ``JOIN_S``.

    Raises:
        WorkerError: no node does, and no autoscaler may add one; names the demand and what there is.
    """
    demand = {name: amount for name, amount in demand.items() if amount}
    if wait_s is None:
        wait_s = 0.0 if _closed else JOIN_S
    until_s, told = time.monotonic() + wait_s, False
    while True:
        nodes = cluster_nodes()
        if not nodes or any(_offers(node, demand) for node in nodes) or _autoscaled():
            return
        if time.monotonic() >= until_s:
            raise WorkerError(
                f"{what}: a worker asks for {_words(demand)}, and no node of the cluster offers that: "
                f"{_there(nodes)}; {_remedy(nodes, demand)}, or add such a node"
            )
        if not told:
            logging.getLogger(__name__).warning(
                "%s: no node offers %s; waiting %g s for one", what, _words(demand), wait_s
            )
            told = True
        time.sleep(min(_POLL_S, max(0.0, until_s - time.monotonic())))


def _offers(node: Mapping[str, float], demand: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) + _ROUNDING >= amount for name, amount in demand.items())


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
