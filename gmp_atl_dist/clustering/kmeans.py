"""k-means with FAISS: fit on a sample of frames, assign to the nearest centroid.

Shape suffixes: M frames, D hidden, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable

import faiss
import numpy as np

from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.seeding import keyed_rng


def sample_frames(
    frames: Iterable[tuple[str, np.ndarray]], total_frames: int, limit: int, key: str
) -> np.ndarray:
    """fp32 [M, D]: all frames, or an even random share of every utterance's.

    ``frames`` yields (utterance id, [T, D]). Which frames are taken depends on ``key`` and the
    utterance id alone, so that the sample is the same however the utterances are spread over parts.
    """
    share = min(1.0, limit / max(total_frames, 1))
    taken: list[np.ndarray] = []
    for utterance_id, x_TD in frames:
        if share < 1.0:
            rng = keyed_rng(key, utterance_id)
            # The fraction of a frame that is left over is taken with its probability.
            count = int(len(x_TD) * share + rng.random())
            x_TD = x_TD[np.sort(rng.choice(len(x_TD), min(count, len(x_TD)), replace=False))]
        taken.append(x_TD.astype(np.float32))
    return np.concatenate(taken) if taken else np.empty((0, 0), dtype=np.float32)


def fit(x_MD: np.ndarray, k: int, *, iterations: int, seed: int, what: str) -> np.ndarray:
    """Lloyd's algorithm from ``k`` random frames on every row of ``x_MD``; fp32 [K, D].

    Raises:
        ConfigError: fewer frames than clusters; ``what`` names the scale.
        ModelError: frames are not finite.
    """
    if len(x_MD) < k:
        raise ConfigError(
            f"{what}: k = {k} is more than the {len(x_MD)} frames of the training speakers; lower k "
            f"or raise cluster.sample_frames"
        )
    kmeans = faiss.Kmeans(
        x_MD.shape[1],
        k,
        niter=iterations,
        seed=seed,
        # FAISS trains on 256 points a centroid unless told, and warns below 39.
        max_points_per_centroid=len(x_MD) // k + 1,
        min_points_per_centroid=1,
    )
    try:
        kmeans.train(np.ascontiguousarray(x_MD, dtype=np.float32))
    except RuntimeError as e:
        # FAISS looks for them itself; a second look would cost a pass over all frames.
        raise ModelError(
            f"{what}: k-means refuses the features, which are not finite or damaged ({e}); run "
            f"gmp-atl verify"
        ) from e
    centroids_KD = kmeans.centroids
    if centroids_KD is None or not np.isfinite(centroids_KD).all():
        raise ModelError(f"{what}: k-means gave centroids that are not finite; run gmp-atl verify")
    return centroids_KD


class Assigner:
    """Nearest centroid, by Euclidean distance."""

    def __init__(self, centroids_KD: np.ndarray) -> None:
        self._index = faiss.IndexFlatL2(centroids_KD.shape[1])
        self._index.add(np.ascontiguousarray(centroids_KD, dtype=np.float32))

    def assign(self, x_MD: np.ndarray) -> np.ndarray:
        """int32 [M]: the row of the nearest centroid for every frame."""
        _, nearest = self._index.search(np.ascontiguousarray(x_MD, dtype=np.float32), 1)
        return nearest[:, 0].astype(np.int32)
