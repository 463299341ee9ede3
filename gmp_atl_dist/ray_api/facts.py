"""What a Ray cluster is made of, asked in seconds and without connecting to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gmp_atl_dist.config import RuntimeConfig

_PROBE = Path(__file__).with_name("gcs_probe.py")


class Node(BaseModel):
    """A node that is there, and all that it offers, used or not."""

    model_config = ConfigDict(frozen=True)

    name: str
    cpus: float
    gpus: float
    resources: dict[str, float] = {}
    """Ray's custom ones, by their names."""


class NodeGroup(Node):
    """Nodes that an autoscaler can add; ``most`` counts those there already, none: any number."""

    most: int | None


class ClusterFacts(BaseModel):
    """Versions are empty where the cluster does not tell them."""

    model_config = ConfigDict(frozen=True)

    ray_version: str
    python_version: str
    nodes: tuple[Node, ...]
    groups: tuple[NodeGroup, ...] = ()
    autoscaled: bool = False


class Unanswered(BaseModel):
    """Why a cluster could not be asked."""

    model_config = ConfigDict(frozen=True)

    failed: Literal["unreachable", "refused", "address"]
    said: str


def configured_address(config: RuntimeConfig) -> str | None:
    """Where the run will look for Ray; none: it starts one of its own."""
    return config.ray_address or os.environ.get("RAY_ADDRESS") or None


def ask_cluster(address: str | None, timeout_s: float) -> ClusterFacts | Unanswered:
    """The facts of the cluster at ``address``, or of a Ray that would be started on this machine."""
    own = address is None or address == "local"
    # -P, so that the modules beside the script do not stand before others of the same names.
    command = [sys.executable, "-P", str(_PROBE), *([] if own else [address])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return Unanswered(failed="unreachable", said=f"no answer within {timeout_s:g} s")
    lines = done.stdout.strip().splitlines() or [""]
    for kind in (ClusterFacts, Unanswered):
        try:
            return kind.model_validate_json(lines[-1])
        except ValidationError:
            continue
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return Unanswered(failed="unreachable", said=said[-1][:300])
