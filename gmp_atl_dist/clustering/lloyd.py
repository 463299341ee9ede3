"""Lloyd's algorithm, one update at a time, apart from where frames lie and who adds them up.

A fit is a :class:`State`: centroids, and what is known of them. A pass over all frames gives the sums under
these centroids; :func:`advance` makes the next state of both. In memory, on several GPUs or on a cluster,
only the pass differs, so all of them take the same way from the same start.

Shape suffixes: D hidden, K clusters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from gmp_atl_dist.clustering.assignment import Metric, unit_rows
from gmp_atl_dist.clustering.statistics import ClusterStatistics
from gmp_atl_dist.errors import ModelError


@dataclass(frozen=True)
class Fit:
    """What one codebook is asked for. ``what`` names it in errors, ``group`` whose frames it hears."""

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
    """The state of a fit.

    ``mean_squared_distances`` has the mean squared distance of a frame to its centroid before each
    update. Once ``done`` it also has that under the final centroids, and ``counts_K`` has the frames
    per final cluster. ``relocated`` counts the empty clusters that were given another centroid.
    """

    centroids_KD: np.ndarray
    mean_squared_distances: tuple[float, ...] = ()
    relocated: int = 0
    done: bool = False
    counts_K: np.ndarray | None = None

    @property
    def updates(self) -> int:
        return (
            len(self.mean_squared_distances) - 1 if self.done else len(self.mean_squared_distances)
        )


@dataclass(frozen=True)
class Request:
    """What a pass is asked for: the sums of a group's frames under these centroids."""

    group: str
    metric: Metric
    centroids_KD: np.ndarray


Pass = Callable[[Sequence[Request]], Sequence[ClusterStatistics]]


def run_fits(
    fits: Sequence[Fit], states: Sequence[State], frames: Pass
) -> Iterator[tuple[int, State]]:
    """Bring every fit to its end, all of them in the same passes; (number, state) after each update."""
    now = list(states)
    while active := [i for i, state in enumerate(now) if not state.done]:
        requests = [Request(fits[i].group, fits[i].metric, now[i].centroids_KD) for i in active]
        for i, sums in zip(active, frames(requests), strict=True):
            now[i] = advance(fits[i], now[i], sums)
            yield i, now[i]


def advance(fit: Fit, state: State, sums: ClusterStatistics) -> State:
    """The state after ``sums`` were taken under its centroids.

    Raises:
        ModelError: there was no frame, or sums are not finite.
    """
    if not sums.frames:
        raise ModelError(f"{fit.what}: there is no frame to fit; look at cluster.silence_db")
    if not np.isfinite(sums.sums_KD).all():
        raise ModelError(f"{fit.what}: sums of frames are not finite; run gmp-atl verify")
    mean_squared_distances = (*state.mean_squared_distances, sums.mean_squared_distance)
    dead = np.flatnonzero(sums.counts_K == 0)
    if state.updates == fit.iterations or (
        not dead.size and _is_still(fit, mean_squared_distances)
    ):
        return replace(
            state, mean_squared_distances=mean_squared_distances, done=True, counts_K=sums.counts_K
        )
    sums_KD, counts_K, relocated = _begun_anew(sums, dead)
    means_KD = sums_KD / np.maximum(counts_K, 1)[:, None]
    # What could not be begun anew stays where it was.
    centroids_KD = np.where(counts_K[:, None] > 0, means_KD, state.centroids_KD).astype(np.float32)
    if fit.metric == "cosine":
        centroids_KD = unit_rows(centroids_KD)
    return State(centroids_KD, mean_squared_distances, state.relocated + relocated)


def _is_still(fit: Fit, mean_squared_distances: Sequence[float]) -> bool:
    """Whether the last update brought too little to go on."""
    if not mean_squared_distances[-1]:
        return True
    if len(mean_squared_distances) < 2:
        return False
    return (
        mean_squared_distances[-2] - mean_squared_distances[-1]
        <= fit.tolerance * mean_squared_distances[-2]
    )


def _begun_anew(sums: ClusterStatistics, dead: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """ClusterStatistics and counts after each dead cluster got the frame that is farthest from its centroid.

    As scikit-learn does it; a frame leaves the cluster that it was in. Where frames are fewer, or lie
    on their centroids, clusters stay dead.
    """
    sums_KD, counts_K = sums.sums_KD.copy(), sums.counts_K.copy()
    relocated = 0
    far = zip(sums.far_FD, sums.far_ids_F, sums.far_squared_F, strict=True)
    for k, (x_D, owner, squared) in zip(dead, far, strict=False):
        if squared <= 0 or counts_K[owner] < 2:
            continue
        sums_KD[owner] -= x_D
        counts_K[owner] -= 1
        sums_KD[k], counts_K[k] = x_D, 1
        relocated += 1
    return sums_KD, counts_K, relocated


def state_to_bytes(state: State) -> bytes:
    """For a checkpoint: safetensors, nothing executable."""
    tensors = {"centroids": state.centroids_KD}
    if state.counts_K is not None:
        tensors["counts"] = state.counts_K
    about = {
        "mean_squared_distances": list(state.mean_squared_distances),
        "relocated": state.relocated,
        "done": state.done,
    }
    return save_tensors(tensors, metadata={"state": json.dumps(about)})


def state_from_bytes(data: bytes) -> State | None:
    """What :func:`state_to_bytes` gave; None where the bytes are not that, whole."""
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
        return State(
            tensors["centroids"],
            tuple(float(value) for value in about["mean_squared_distances"]),
            int(about["relocated"]),
            bool(about["done"]),
            tensors.get("counts"),
        )
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
