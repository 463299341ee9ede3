"""Nearest centroids of arrays by an engine on devices: for labels, which are assigned once.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gmp_atl_dist.clustering.device import Copier, default_block_rows, on_device
from gmp_atl_dist.clustering.device_search import make_search, prepared, usable_rows
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.frame_arrays import as_floats, check_dim, unit_rows
from gmp_atl_dist.clustering.state import Metric


class DeviceAssigner:
    """An :class:`gmp_atl_dist.clustering.assignment.Assigner` on devices, which get blocks in turn."""

    def __init__(
        self,
        centroids_KD: np.ndarray,
        metric: Metric,
        engine: Engine,
        on: Sequence[torch.device],
    ) -> None:
        self.metric: Metric = metric
        self.k, self.dim = centroids_KD.shape
        self.block_rows = default_block_rows(on)
        self._copiers = [Copier(device) for device in on]
        centroids = torch.from_numpy(np.array(centroids_KD, np.float32, order="C"))
        self._searches = [make_search(engine, centroids.to(device), metric) for device in on]
        self._next = 0

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        return unit_rows(as_floats(x_MD)) if self.metric == "cosine" else as_floats(x_MD)

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_dim(x_MD, self.dim)
        copier, search = self._copiers[self._next], self._searches[self._next]
        self._next = (self._next + 1) % len(self._copiers)
        if not len(x_MD):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        with on_device(copier.device):
            # The host has brought frames to unit length already.
            there_MD, squares_M = prepared(copier.to_device(x_MD), "euclidean")
            squared_M, ids_M = search(there_MD, squares_M)
            usable_M = usable_rows(ids_M, squared_M, squares_M, self.k)
            ids_M = torch.where(usable_M, ids_M, -1)
            copier.started()
        return ids_M.cpu().numpy(), squared_M.cpu().numpy()
