"""A script: ``gcs_probe.py [ADDRESS]`` prints as JSON what a Ray cluster says of itself.

Run by ``facts.py`` in a process of its own, because Ray's client waits in C++, where nothing but a
kill ends it in time. It becomes no driver and starts nothing; it imports nothing but Ray, since its
folder is not the one that the package is found in.
"""

# pyright: reportAttributeAccessIssue=false
# Ray's C++ client and its messages have no stubs.
from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress

_TIMEOUT_S = 5.0


def main(address: str) -> dict[str, object]:
    return _cluster(address) if address else _this_machine()


def _this_machine() -> dict[str, object]:
    """What a Ray that is started here would offer."""
    import ray
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
    from ray._private.utils import get_num_cpus

    gpus = NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    visible = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    node = {
        "name": "this machine",
        "cpus": get_num_cpus(),
        "gpus": gpus if visible is None else min(gpus, len(visible)),
    }
    python = ".".join(map(str, sys.version_info[:3]))
    return {"ray_version": ray.__version__, "python_version": python, "nodes": [node]}


def _cluster(address: str) -> dict[str, object]:
    if "://" in address:
        return _failed("address", "is no host:port of a cluster's control service (GCS)")
    if address in ("auto", "local"):
        from ray._private.services import canonicalize_bootstrap_address

        found = canonicalize_bootstrap_address("auto")
        if not found:
            return _failed("unreachable", "no Ray runs on this machine")
        address = found
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return _failed("address", "is no host:port")
    try:
        # Ray's own client would try for a minute.
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()
    except OSError as e:
        return _failed("unreachable", f"nobody answers ({e})")
    return _ask(address)


def _ask(address: str) -> dict[str, object]:
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.exceptions import AuthenticationError

    try:
        client = GcsClient(address=address)
        nodes = client.get_all_node_info(timeout=_TIMEOUT_S).values()
        versions = get_cluster_metadata(client) or {}
    except AuthenticationError:
        return _failed("refused", "Ray refused our token, or we gave none")
    groups, autoscaled = _autoscaler(client)
    return {
        "ray_version": versions.get("ray_version", ""),
        "python_version": versions.get("python_version", ""),
        "nodes": [
            {"name": n.node_name or n.node_manager_address, **_resources(n.resources_total)}
            for n in nodes
            if n.state == GcsNodeInfo.ALIVE
        ],
        "groups": groups,
        "autoscaled": autoscaled,
    }


def _autoscaler(client) -> tuple[list[dict[str, object]], bool]:  # pyright: ignore[reportMissingParameterType]
    """Groups of nodes with limits where an autoscaler has told them; whether there seems to be one."""
    import ray._raylet as raylet
    from ray.core.generated.autoscaler_pb2 import ClusterConfig

    groups: list[dict[str, object]] = []
    told = client.internal_kv_get(
        raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(),
        raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode(),
        timeout=_TIMEOUT_S,
    )
    if told:
        for group in ClusterConfig.FromString(told).node_group_configs:
            most = None if group.max_count < 0 else group.max_count
            groups.append({"name": group.name, "most": most, **_resources(group.resources)})
        return groups, any(group["most"] != 0 for group in groups)
    version_2 = client.internal_kv_get(
        raylet.GCS_AUTOSCALER_V2_ENABLED_KEY.encode(),
        raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode(),
        timeout=_TIMEOUT_S,
    )
    types: dict[str, object] = {}
    # Version 1 reports also where it may add nothing; the types of nodes are then named for nodes.
    with suppress(TypeError, ValueError, KeyError):
        status = client.internal_kv_get(b"__autoscaling_status", None, timeout=_TIMEOUT_S)
        types = json.loads(status)["autoscaler_report"]["active_nodes"]
    return groups, version_2 == b"1" or any(not name.startswith("node_") for name in types)


def _resources(total) -> dict[str, object]:  # pyright: ignore[reportMissingParameterType]
    own = ("CPU", "GPU", "memory", "object_store_memory")
    return {
        "cpus": float(total.get("CPU", 0)),
        "gpus": float(total.get("GPU", 0)),
        # Ray names each node by a resource, too.
        "resources": {
            name: float(total[name])
            for name in total
            if name not in own and not name.startswith("node:")
        },
    }


def _failed(why: str, said: str) -> dict[str, object]:
    return {"failed": why, "said": said}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1] if len(sys.argv) > 1 else "")))
