"""The fits of ``benchmarks.kmeans`` in memory: ours, fairseq's and FAISS's, one per process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inputs.vectors import STORED_LAYER, structured


@dataclass(frozen=True)
class Fitted:
    """What one fit took, and how far the frames are from its centroids."""

    cpu_s: float
    mean_squared_distance: float


def save_structured(npy: Path, frames: int) -> None:
    """float32 [frames, 768] of structured vectors."""
    np.save(npy, structured(frames))


def save_speech(npy: Path, root: str) -> None:
    """float32 [M, 768]: layer 9 of the training recordings below ``root``, rounded to fp16 as stored."""
    from benchmarks.inputs.speech import Speech
    from gmp_atl_dist.models.packed import PackedHubert

    speech = Speech.at(root)
    packed = PackedHubert(speech.model(), (STORED_LAYER,), window_frames=3000, context_frames=250)
    features: list[np.ndarray] = []
    for wave_N in speech.waves():
        (of_one,) = packed([wave_N], 3000)
        features.append(of_one[STORED_LAYER].numpy().astype(np.float16))
    np.save(npy, np.concatenate(features).astype(np.float32))


def fit_once(subject: str, k: int, npy: Path) -> Fitted:
    """Fit the vectors of a file; the process must have been given one thread before."""
    import faiss

    faiss.omp_set_num_threads(1)
    x_MD = np.load(npy)
    started_s = time.process_time()
    centroids_KD = FITS[subject](x_MD, k)
    cpu_s = time.process_time() - started_s
    squared, _ = faiss.knn(x_MD, np.ascontiguousarray(centroids_KD, dtype=np.float32), 1)
    return Fitted(cpu_s, float(squared.astype(np.float64).mean()))


def _ours(x_MD: np.ndarray, k: int) -> np.ndarray:
    from gmp_atl_dist.clustering.assignment_step import fit_in_memory
    from gmp_atl_dist.clustering.state import Fit

    (state,) = fit_in_memory([Fit("benchmark", k, seed=0)], {"all": x_MD}, threads=1)
    return state.centroids_KD


def _ours_torch(x_MD: np.ndarray, k: int) -> np.ndarray:
    from gmp_atl_dist.clustering.assignment_step import fit_in_memory
    from gmp_atl_dist.clustering.state import Fit

    (state,) = fit_in_memory([Fit("benchmark", k, seed=0)], {"all": x_MD}, engine="torch")
    return state.centroids_KD


def _fairseq(x_MD: np.ndarray, k: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        n_clusters=k,
        init="k-means++",
        max_iter=100,
        batch_size=10_000,
        tol=0.0,
        max_no_improvement=100,
        n_init=20,  # pyright: ignore[reportArgumentType]  (a number as well)
        reassignment_ratio=0.0,
        compute_labels=False,
        random_state=0,
    )
    return np.asarray(model.fit(x_MD).cluster_centers_)


def _faiss(x_MD: np.ndarray, k: int, **keys: int) -> np.ndarray:
    import faiss

    kmeans = faiss.Kmeans(x_MD.shape[1], k, **keys)
    kmeans.train(x_MD)
    return np.asarray(kmeans.centroids)


def _faiss_all_frames(x_MD: np.ndarray, k: int) -> np.ndarray:
    return _faiss(x_MD, k, max_points_per_centroid=len(x_MD))


def _super(x_MD: np.ndarray, k: int) -> np.ndarray:
    import faiss

    kmeans = faiss.SuperKmeans(  # pyright: ignore[reportAttributeAccessIssue]
        x_MD.shape[1], k, max_points_per_centroid=len(x_MD)
    )
    kmeans.train(x_MD)
    return np.asarray(kmeans.centroids).reshape(k, -1)


OURS, FAIRSEQ = "ours", "fairseq (MiniBatchKMeans)"
FITS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    OURS: _ours,
    "ours, torch engine": _ours_torch,
    FAIRSEQ: _fairseq,
    "faiss.Kmeans": _faiss,
    "faiss.Kmeans, all frames": _faiss_all_frames,
    "faiss SuperKMeans": _super,
}
"""Each takes float32 [M, D] and k, and returns centroids [K, D]."""
