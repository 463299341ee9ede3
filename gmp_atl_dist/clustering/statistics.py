"""The statistics of an assignment step: sums and counts per cluster, and squared distances.

Sums are fp64. A feature is stored as fp16, a multiple of 2^-24, so its sum is *exact* up to 2^29. Then
neither the order nor the pieces in which frames are added matter. Sums of imported fp32 frames and of the
unit rows of the cosine metric are rounded; pieces are added in a fixed order in any case.

Shape suffixes: M frames, D hidden, K clusters, F farthest.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from gmp_atl_dist.clustering.answers import checked_nearest
from gmp_atl_dist.clustering.assignment import Assigner

FARTHEST = 16
"""Frames farthest from their centroid that an assignment step keeps. Empty clusters are relocated to them."""


@dataclass
class ClusterStatistics:
    """The statistics of some frames under some centroids.

    ``sums_KD`` are the sums of the frames of each cluster, ``counts_K`` their number, and
    ``squared_distances_K`` the sums of their squared distances to the centroid. ``far_FD`` are the frames
    farthest from their centroids, the farthest first; of two frames at the same distance the earlier one
    comes first. ``far_ids_F`` and ``far_squared_F`` are their clusters and squared distances.
    """

    sums_KD: np.ndarray
    counts_K: np.ndarray
    squared_distances_K: np.ndarray
    far_FD: np.ndarray
    far_ids_F: np.ndarray
    far_squared_F: np.ndarray

    @classmethod
    def zero(cls, k: int, dim: int) -> ClusterStatistics:
        return cls(
            np.zeros((k, dim)),
            np.zeros(k, np.int64),
            np.zeros(k),
            np.empty((0, dim), np.float32),
            np.empty(0, np.int64),
            np.empty(0),
        )

    @classmethod
    def of(
        cls,
        x_MD: np.ndarray,
        assigner: Assigner,
        lock: AbstractContextManager[object] | None = None,
    ) -> ClusterStatistics:
        """The statistics of one block of prepared frames, fp32. ``lock`` is held while ``assigner`` works.

        Raises:
            NotFiniteError: a frame is not finite.
        """
        with lock or nullcontext():
            ids_M, squared_M = checked_nearest(assigner, x_MD)
        if len(ids_M) and ids_M.min() < 0:
            raise NotFiniteError(int(np.flatnonzero(ids_M < 0)[0]))
        squared_M = squared_M.astype(np.float64)
        # Column m of this matrix has its single 1 in row ids_M[m].
        one_hot_KM = sparse.csc_matrix(
            (np.ones(len(x_MD)), ids_M, np.arange(len(x_MD) + 1)), shape=(assigner.k, len(x_MD))
        )
        far_F = np.argsort(-squared_M, kind="stable")[:FARTHEST]
        return cls(
            one_hot_KM @ x_MD.astype(np.float64),
            np.bincount(ids_M, minlength=assigner.k),
            np.bincount(ids_M, weights=squared_M, minlength=assigner.k),
            x_MD[far_F],
            ids_M[far_F],
            squared_M[far_F],
        )

    @property
    def frames(self) -> int:
        return int(self.counts_K.sum())

    @property
    def mean_squared_distance(self) -> float:
        """Mean squared distance of a frame to its centroid."""
        return float(self.squared_distances_K.sum()) / max(self.frames, 1)

    def add(self, other: ClusterStatistics) -> None:
        """Add the statistics of ``other``, whose frames come after these."""
        self.sums_KD += other.sums_KD
        self.counts_K += other.counts_K
        self.squared_distances_K += other.squared_distances_K
        squared = np.concatenate([self.far_squared_F, other.far_squared_F])
        order = np.argsort(-squared, kind="stable")[:FARTHEST]
        self.far_squared_F = squared[order]
        self.far_ids_F = np.concatenate([self.far_ids_F, other.far_ids_F])[order]
        self.far_FD = np.concatenate([self.far_FD, other.far_FD])[order]


class NotFiniteError(Exception):
    """A frame is not finite: its row in a block or in a group.

    The caller that knows the utterance of that row reports it.
    """

    def __init__(self, row: int, group: str = "") -> None:
        super().__init__(f"row {row} of group {group!r} is not finite")
        self.row = row
        self.group = group
