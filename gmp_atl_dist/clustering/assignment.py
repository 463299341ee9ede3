"""The nearest centroid of each frame of an array: a protocol, and FAISS on a CPU as its first implementation.

Another library is a class with the members of :class:`Assigner` and a function such as
:func:`make_assigner`. ``AssignmentStep`` takes that function as an argument; to use it in every stage,
return the class from :func:`make_assigner`. Searches on a GPU are in ``device_search.py``.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import faiss
import numpy as np

from gmp_atl_dist.clustering.answers import checked_nearest
from gmp_atl_dist.clustering.engines import EngineChoice, chosen_engine
from gmp_atl_dist.clustering.frame_arrays import as_floats, check_dim, unit_rows
from gmp_atl_dist.clustering.state import Metric

BLOCK_ROWS = 2048
"""Frames that FAISS is given at a time on a CPU. Its distances differ in the last bit with the rows around
a frame. So this is a constant: the same frames in the same order then have the same bits on any worker."""


class Assigner(Protocol):
    """Finds the nearest of ``k`` centroids with ``dim`` values each."""

    @property
    def k(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def block_rows(self) -> int:
        """Frames that it is given at a time."""
        ...

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        """fp32 [M, D]: fp16 or fp32 frames as :meth:`nearest` takes them, at unit length for ``cosine``.

        The result depends on the metric alone, so assigners of one metric share it.
        """
        ...

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [M] rows of the nearest centroids, -1 of frames that are not finite; fp32 [M] squared
        Euclidean distances to them. ``x_MD`` is prepared.

        Raises:
            ModelError: frames have another dimension than the centroids.
        """
        ...


AssignerFactory = Callable[[np.ndarray, Metric], Assigner]
"""Makes the assigner of centroids [K, D] for a metric."""


def make_assigner(
    centroids_KD: np.ndarray,
    metric: Metric = "euclidean",
    gpus: int = 0,
    engine: EngineChoice = "auto",
) -> Assigner:
    """The assigner that every stage uses: FAISS on the CPU, or either engine on the GPUs of this process.

    Raises:
        ModelError: there are fewer GPUs than ``gpus``, or FAISS sees fewer.
    """
    chosen = chosen_engine(engine, gpus)
    if chosen == "faiss" and not gpus:
        return FaissAssigner(centroids_KD, metric)
    # torch is not imported where FAISS does the work on a CPU.
    from gmp_atl_dist.clustering.device import engine_devices
    from gmp_atl_dist.clustering.device_assigner import DeviceAssigner

    return DeviceAssigner(centroids_KD, metric, chosen, engine_devices(chosen, gpus))


def nearest_ids(assigner: Assigner, x_MD: np.ndarray) -> np.ndarray:
    """int32 [M]: the row of the nearest centroid of every frame, fp16 or fp32; -1 if it is not finite."""
    rows = assigner.block_rows
    ids = [
        checked_nearest(assigner, assigner.prepared(x_MD[start : start + rows]))[0]
        for start in range(0, len(x_MD), rows)
    ]
    return np.concatenate(ids).astype(np.int32) if ids else np.empty(0, np.int32)


class FaissAssigner:
    """Nearest centroid by FAISS's exhaustive search on the CPU."""

    block_rows = BLOCK_ROWS

    def __init__(self, centroids_KD: np.ndarray, metric: Metric = "euclidean") -> None:
        self.metric: Metric = metric
        self.k, self.dim = centroids_KD.shape
        self._index = faiss.IndexFlatL2(self.dim)
        self._index.add(np.ascontiguousarray(centroids_KD, dtype=np.float32))

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        return unit_rows(as_floats(x_MD)) if self.metric == "cosine" else as_floats(x_MD)

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_dim(x_MD, self.dim)
        squared_M1, ids_M1 = self._index.search(x_MD, 1)
        return ids_M1[:, 0], squared_M1[:, 0]
