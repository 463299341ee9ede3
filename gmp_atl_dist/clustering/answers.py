"""Checks the answers of a library that finds nearest centroids, before anything is made of them.

FAISS on GPUs up to 1.14 gives cluster 0 for a frame that is not finite, where the CPU gives -1. An id outside
the codebook would be a write outside the matrix of sums, which ends the process.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gmp_atl_dist.errors import WorkerError

_LARGEST = float(np.finfo(np.float32).max)
"""FAISS starts its search for the smallest distance here, so a frame that has none keeps it."""


class NearestSearch(Protocol):
    """What is used of an assigner."""

    @property
    def k(self) -> int: ...
    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def checked_nearest(assigner: NearestSearch, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``assigner.nearest(x_MD)`` as ``assignment.Assigner`` promises it: -1 where a frame is not finite.

    Args:
        assigner: of any library.
        x_MD: prepared frames, fp32.

    Returns:
        int64 [M] clusters, or -1; fp32 [M] squared distances.

    Raises:
        ModelError: frames have another dimension than the centroids.
        WorkerError: the library gave an id that is no cluster, or another number of answers.
    """
    ids_M, squared_M = assigner.nearest(x_MD)
    if ids_M.shape != (len(x_MD),) or squared_M.shape != (len(x_MD),):
        raise WorkerError(
            f"the search for nearest centroids gave {ids_M.shape} ids and {squared_M.shape} distances "
            f"of {len(x_MD)} frames; {_REMEDY}"
        )
    # The sum of a row is finite only if each of its values is; two passes would take twice as long.
    with np.errstate(invalid="ignore", over="ignore"):
        is_known_M = np.isfinite(x_MD.sum(axis=1)) & (np.abs(squared_M) < _LARGEST)
    if not is_known_M.all():
        ids_M = np.where(is_known_M, ids_M, -1)
    is_wrong_M = is_known_M & ((ids_M < 0) | (ids_M >= assigner.k))
    if is_wrong_M.any():
        row = int(np.flatnonzero(is_wrong_M)[0])
        raise WorkerError(
            f"the search for nearest centroids gave cluster {int(ids_M[row])} of {assigner.k} for row "
            f"{row} of a block of {len(x_MD)} frames, which is finite; {_REMEDY}"
        )
    return ids_M, squared_M


_REMEDY = (
    "install FAISS 1.15 or newer (pip install faiss-gpu, without faiss-cpu), or set "
    "runtime.cluster.gpus and runtime.label.gpus to 0"
)
