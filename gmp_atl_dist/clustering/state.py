"""The state of a fit, and what a fit asks for. Light: imports neither FAISS nor torch.

Shape suffixes: D hidden, K clusters.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

Metric = Literal["euclidean", "cosine"]


@dataclass(frozen=True)
class Fit:
    """The settings of one codebook's fit. ``what`` names it in errors; ``group`` is that of its frames."""

    what: str
    k: int
    seed: int
    group: str = "all"
    metric: Metric = "euclidean"
    init: str = "random"
    iterations: int = 25
    tolerance: float = 3e-4


@dataclass(frozen=True)
class State:
    """The state of a fit after some updates.

    ``mean_squared_distances`` has the mean squared distance of a frame to its centroid before each
    update. Once ``done``, it also has that of the final centroids, and ``counts_K`` has the frames per
    final cluster. ``relocated`` counts the empty clusters that were given another centroid.
    """

    centroids_KD: np.ndarray
    mean_squared_distances: tuple[float, ...] = ()
    relocated: int = 0
    done: bool = False
    counts_K: np.ndarray | None = None

    @property
    def updates(self) -> int:
        distances = self.mean_squared_distances
        return len(distances) - 1 if self.done else len(distances)


@dataclass(frozen=True)
class Request:
    """Asks an assignment step for the statistics of a group's frames under these centroids."""

    group: str
    metric: Metric
    centroids_KD: np.ndarray


def state_to_bytes(state: State) -> bytes:
    """For a checkpoint: safetensors, which holds nothing executable."""
    tensors = {"centroids": state.centroids_KD}
    if state.counts_K is not None:
        tensors["counts"] = state.counts_K
    fields = {
        "mean_squared_distances": list(state.mean_squared_distances),
        "relocated": state.relocated,
        "done": state.done,
        "sha256": _digest(tensors),
    }
    return save_tensors(tensors, metadata={"state": json.dumps(fields)})


def _digest(tensors: dict[str, np.ndarray]) -> str:
    """sha256 over the values, by name: safetensors itself does not notice a changed one."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def state_from_bytes(data: bytes) -> State | None:
    """The inverse of :func:`state_to_bytes`; None if the bytes are damaged."""
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        fields = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
        # Checkpoints of earlier releases have no digest.
        if fields.get("sha256") not in (None, _digest(tensors)):
            return None
        return State(
            tensors["centroids"],
            tuple(float(value) for value in fields["mean_squared_distances"]),
            int(fields["relocated"]),
            bool(fields["done"]),
            tensors.get("counts"),
        )
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
