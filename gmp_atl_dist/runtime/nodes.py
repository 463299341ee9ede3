"""The nodes of the cluster that this process is connected to."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

_NO_DEMAND = ("memory", "object_store_memory")


def cluster_nodes() -> Sequence[Mapping[str, float]] | None:
    """What each living node offers, used or not: ``CPU``, ``GPU`` and custom resources, by name.

    None without a connection to Ray, and with Ray Client, which does not tell.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    try:
        nodes = ray.nodes()
    except Exception:  # a control service that restarts, or Ray Client
        return None
    return [
        {k: float(v) for k, v in n["Resources"].items() if k not in _NO_DEMAND}
        for n in nodes
        if n["Alive"]
    ]
