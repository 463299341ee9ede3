"""The nearest centroid of each frame: a protocol, and FAISS as its first implementation.

Another device or library is a class with the members of :class:`Assigner` and a function such as
:func:`make_assigner`. ``AssignmentStep`` and ``fit_in_memory`` take that function as an argument; to use
it in every stage, return the class from :func:`make_assigner`.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import faiss
import numpy as np

from gmp_atl_dist.clustering.answers import checked_nearest
from gmp_atl_dist.clustering.state import Metric
from gmp_atl_dist.device import faiss_on_gpus
from gmp_atl_dist.errors import ModelError

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


AssignerFactory = Callable[[np.ndarray, Metric, int], Assigner]
"""Makes the assigner of centroids [K, D], for a metric, on a number of GPUs; 0 is the CPU."""


def make_assigner(
    centroids_KD: np.ndarray, metric: Metric = "euclidean", gpus: int = 0
) -> Assigner:
    """The assigner that every stage uses."""
    return FaissAssigner(centroids_KD, metric, gpus)


def nearest_ids(assigner: Assigner, x_MD: np.ndarray) -> np.ndarray:
    """int32 [M]: the row of the nearest centroid of every frame, fp16 or fp32; -1 if it is not finite."""
    ids = [
        checked_nearest(assigner, assigner.prepared(x_MD[start : start + BLOCK_ROWS]))[0]
        for start in range(0, len(x_MD), BLOCK_ROWS)
    ]
    return np.concatenate(ids).astype(np.int32) if ids else np.empty(0, np.int32)


def as_floats(x_MD: np.ndarray) -> np.ndarray:
    """fp32, C order, of fp16 or fp32 frames. fp32 frames are not copied."""
    if x_MD.dtype != np.float16:
        return np.ascontiguousarray(x_MD, dtype=np.float32)
    if not len(x_MD):
        return np.empty(x_MD.shape, np.float32)
    # numpy converts one value at a time; FAISS's decoder uses vector instructions.
    codec = faiss.IndexScalarQuantizer(x_MD.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return codec.sa_decode(np.ascontiguousarray(x_MD).view(np.uint8))


def unit_rows(x_MD: np.ndarray) -> np.ndarray:
    """Rows at unit length, fp32. A row of zeros stays zero."""
    unit_MD = np.array(x_MD, dtype=np.float32, order="C")
    faiss.normalize_L2(unit_MD)
    return unit_MD


class FaissAssigner:
    """Nearest centroid by FAISS's exhaustive search, on the CPU or on the GPUs of one machine.

    Each of several ``gpus`` holds all centroids and gets a share of the frames.
    """

    def __init__(
        self, centroids_KD: np.ndarray, metric: Metric = "euclidean", gpus: int = 0
    ) -> None:
        index = faiss.IndexFlatL2(centroids_KD.shape[1])
        index.add(np.ascontiguousarray(centroids_KD, dtype=np.float32))
        self.metric: Metric = metric
        self.k, self.dim = centroids_KD.shape
        self._index = faiss_on_gpus(index, gpus) if gpus else index

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        return unit_rows(as_floats(x_MD)) if self.metric == "cosine" else as_floats(x_MD)

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if x_MD.shape[1] != self.dim:
            raise ModelError(
                f"frames have {x_MD.shape[1]} values and the codebook's centroids {self.dim}; the "
                f"codebook is of another model: use the features that it was fitted on"
            )
        squared_M1, ids_M1 = self._index.search(x_MD, 1)
        return ids_M1[:, 0], squared_M1[:, 0]
