"""The nearest centroid of each frame, by FAISS, on a CPU or on the GPUs of one machine.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np

from gmp_atl_dist.device import faiss_on_gpus
from gmp_atl_dist.errors import ModelError

Metric = Literal["euclidean", "cosine"]

BLOCK_ROWS = 2048
"""Frames that FAISS is given at a time. Its distances differ in the last bit with the rows around a
frame, so this is a constant: the same frames in the same order then have the same bits, whoever computes."""


def as_floats(x_MD: np.ndarray) -> np.ndarray:
    """fp32, C order, of fp16 or fp32 frames; what is fp32 already is not copied."""
    if x_MD.dtype != np.float16:
        return np.ascontiguousarray(x_MD, dtype=np.float32)
    if not len(x_MD):
        return np.empty(x_MD.shape, np.float32)
    # numpy converts a value at a time; this is FAISS's own decoding, in vector instructions.
    codec = faiss.IndexScalarQuantizer(x_MD.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return codec.sa_decode(np.ascontiguousarray(x_MD).view(np.uint8))


def unit_rows(x_MD: np.ndarray) -> np.ndarray:
    """Rows at unit length, fp32; a row of zeros stays one."""
    unit_MD = np.array(x_MD, dtype=np.float32, order="C")
    faiss.normalize_L2(unit_MD)
    return unit_MD


class Assigner:
    """Nearest centroid: by Euclidean distance, for ``cosine`` of rows at unit length.

    With several ``gpus`` FAISS puts the centroids on each, and each gets its share of the frames.

    Raises:
        ModelError: frames have another dimension than the centroids.
    """

    def __init__(
        self, centroids_KD: np.ndarray, metric: Metric = "euclidean", gpus: int = 0
    ) -> None:
        index = faiss.IndexFlatL2(centroids_KD.shape[1])
        index.add(np.ascontiguousarray(centroids_KD, dtype=np.float32))
        self.metric: Metric = metric
        self.k, self.dim = centroids_KD.shape
        self._index = faiss_on_gpus(index, gpus) if gpus else index

    def assign(self, x_MD: np.ndarray) -> np.ndarray:
        """int32 [M]: the row of the nearest centroid for every frame, fp16 or fp32."""
        ids = [
            self.nearest(self.prepared(x_MD[start : start + BLOCK_ROWS]))[0]
            for start in range(0, len(x_MD), BLOCK_ROWS)
        ]
        return np.concatenate(ids).astype(np.int32) if ids else np.empty(0, np.int32)

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        """Frames as :meth:`nearest` takes them."""
        return unit_rows(as_floats(x_MD)) if self.metric == "cosine" else as_floats(x_MD)

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [M] rows of the nearest centroids, -1 of frames that are not finite; fp32 [M] squared
        distances."""
        if x_MD.shape[1] != self.dim:
            raise ModelError(
                f"frames have {x_MD.shape[1]} values and the codebook's centroids {self.dim}; it is "
                f"of another model: use the features that it was fitted on"
            )
        squared_M1, ids_M1 = self._index.search(x_MD, 1)
        return ids_M1[:, 0], squared_M1[:, 0]
