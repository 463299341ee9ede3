"""Lloyd's algorithm, one update at a time. It knows neither where frames lie nor who computes.

An assignment step over all frames gives the cluster statistics of a :class:`State`'s centroids;
:func:`advance` makes the next state from both. In memory, on several GPUs and on a cluster only the
assignment step differs, so from the same first centroids all of them take the same updates.

Shape suffixes: D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from gmp_atl_dist.clustering.frame_arrays import unit_rows
from gmp_atl_dist.clustering.state import Fit, Request, State
from gmp_atl_dist.clustering.statistics import ClusterStatistics
from gmp_atl_dist.errors import ModelError

AssignFrames = Callable[[Sequence[Request]], Sequence[ClusterStatistics]]
"""An assignment step over all frames: the statistics of each request, in order."""


def run_fits(
    fits: Sequence[Fit], states: Sequence[State], assign_frames: AssignFrames
) -> Iterator[tuple[int, State]]:
    """Run every fit to its end, all of them in the same assignment steps.

    Yields (number of the fit, its state) after each update.
    """
    states = list(states)
    while active := [i for i, state in enumerate(states) if not state.done]:
        requests = [Request(fits[i].group, fits[i].metric, states[i].centroids_KD) for i in active]
        for i, statistics in zip(active, assign_frames(requests), strict=True):
            states[i] = advance(fits[i], states[i], statistics)
            yield i, states[i]


def advance(fit: Fit, state: State, statistics: ClusterStatistics) -> State:
    """The state after the update that follows from the ``statistics`` of its centroids.

    Raises:
        ModelError: there was no frame, or sums are not finite.
    """
    if not statistics.frames:
        raise ModelError(f"{fit.what}: there is no frame to fit; check cluster.silence_db")
    if not np.isfinite(statistics.sums_KD).all():
        raise ModelError(f"{fit.what}: sums of frames are not finite; run gmp-atl verify")
    distances = (*state.mean_squared_distances, statistics.mean_squared_distance)
    empty = np.flatnonzero(statistics.counts_K == 0)
    if state.updates == fit.iterations or (not empty.size and _has_converged(fit, distances)):
        counts_K = statistics.counts_K
        return replace(state, mean_squared_distances=distances, done=True, counts_K=counts_K)
    sums_KD, counts_K, relocated = _relocate_empty(statistics, empty)
    means_KD = sums_KD / np.maximum(counts_K, 1)[:, None]
    # A cluster that is still empty keeps its centroid.
    centroids_KD = np.where(counts_K[:, None] > 0, means_KD, state.centroids_KD).astype(np.float32)
    if fit.metric == "cosine":
        centroids_KD = unit_rows(centroids_KD)
    return State(centroids_KD, distances, state.relocated + relocated)


def _has_converged(fit: Fit, distances: Sequence[float]) -> bool:
    """Whether the last update lowered the mean squared distance by the tolerance at most."""
    if not distances[-1]:
        return True
    if len(distances) < 2:
        return False
    return distances[-2] - distances[-1] <= fit.tolerance * distances[-2]


def _relocate_empty(
    statistics: ClusterStatistics, empty: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums and counts after each empty cluster got the frame farthest from its centroid, and how many did.

    This is scikit-learn's rule: the frame leaves the cluster that it was in. Where there are too few
    such frames, or they lie on their centroids, clusters stay empty.
    """
    sums_KD, counts_K = statistics.sums_KD.copy(), statistics.counts_K.copy()
    relocated = 0
    farthest = zip(statistics.far_FD, statistics.far_ids_F, statistics.far_squared_F, strict=True)
    for k, (x_D, owner, squared) in zip(empty, farthest, strict=False):
        if squared <= 0 or counts_K[owner] < 2:
            continue
        sums_KD[owner] -= x_D
        counts_K[owner] -= 1
        sums_KD[k], counts_K[k] = x_D, 1
        relocated += 1
    return sums_KD, counts_K, relocated
