"""The initialization of a fit: its first centroids are different frames of the data.

Shape suffixes: S frames that may become centroids, D hidden, K clusters.
"""

from __future__ import annotations

import faiss
import numpy as np

from gmp_atl_dist.clustering.frame_arrays import as_floats, unit_rows
from gmp_atl_dist.clustering.state import Metric
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.seeding import keyed_rng, keyed_seed

INITIALIZATION_FRAMES = 50_000
"""Frames of a layer, evenly drawn, that first centroids are chosen from; at least 4 k of them."""
_PER_CENTROID = 20


def initialization_frames(k: int) -> int:
    """The number of frames from which a fit of ``k`` clusters chooses its first centroids."""
    return max(INITIALIZATION_FRAMES, 4 * k)


def evenly(total: int, most: int) -> np.ndarray:
    """The numbers of at most ``most`` of ``total`` rows, evenly spaced."""
    return np.arange(total) if total <= most else np.arange(most) * total // most


def initial_centroids(
    x_SD: np.ndarray, k: int, *, init: str, metric: Metric, seed: int, what: str
) -> np.ndarray:
    """fp32 [K, D]: ``k`` different frames of ``x_SD``, chosen at random or by FAISS's k-means++.

    At most :func:`initialization_frames` frames are considered, evenly spaced. k-means++ (Arthur and
    Vassilvitskii, 2007) chooses among 20 frames per centroid.

    Raises:
        ConfigError: there are fewer frames, or fewer different frames, than clusters; or, with the
            cosine metric, a frame of zeros. ``what`` names the scale in the message.
    """
    if len(x_SD) < k:
        raise ConfigError(
            f"{what}: k = {k} is more than the {len(x_SD)} frames of the training speakers; lower k "
            f"or raise cluster.sample_frames"
        )
    x_SD = as_floats(x_SD[evenly(len(x_SD), initialization_frames(k))])
    if metric == "cosine":
        x_SD = _checked_unit_rows(x_SD, what)
    x_SD = x_SD[_different_rows(x_SD)]
    if len(x_SD) < k:
        raise ConfigError(
            f"{what}: k = {k} is more than the {len(x_SD)} different frames among those considered; "
            f"constant or duplicate frames make no clusters: lower k, check the features, or raise "
            f"cluster.sample_frames"
        )
    order_S = keyed_rng("start", seed, k).permutation(len(x_SD))
    if init == "random":
        return x_SD[np.sort(order_S[:k])]
    candidates_SD = np.ascontiguousarray(x_SD[order_S[: max(_PER_CENTROID * k, 2)]])
    chosen_KD = np.empty((k, x_SD.shape[1]), np.float32)
    # FAISS's type stubs lack it.
    seeding = faiss.ClusteringInitialization(x_SD.shape[1], k)  # pyright: ignore[reportAttributeAccessIssue]
    seeding.method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    seeding.seed = keyed_seed("k-means++", seed, k) & 0x7FFFFFFF
    seeding.init_centroids(
        len(candidates_SD), faiss.swig_ptr(candidates_SD), faiss.swig_ptr(chosen_KD)
    )
    return _all_different(chosen_KD, candidates_SD)


def _all_different(chosen_KD: np.ndarray, x_SD: np.ndarray) -> np.ndarray:
    """Replace frames that were chosen twice by the first ones that were not chosen.

    k-means++ may choose equal frames, because its distances are rounded.
    """
    kept = _different_rows(chosen_KD)
    if len(kept) == len(chosen_KD):
        return chosen_KD
    both = np.concatenate([chosen_KD[kept], x_SD])
    return both[_different_rows(both)][: len(chosen_KD)]


def _different_rows(x_SD: np.ndarray) -> np.ndarray:
    """The numbers of the rows that equal no earlier row, in ascending order."""
    # Adding 0 turns -0.0 into 0.0: both are the same frame.
    rows = np.ascontiguousarray(x_SD) + np.float32(0)
    first: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.tobytes(), number)
    return np.fromiter(first.values(), np.int64, len(first))


def _checked_unit_rows(x_SD: np.ndarray, what: str) -> np.ndarray:
    if not np.any(x_SD, axis=1).all():
        raise ConfigError(
            f"{what}: a frame is all zeros and has no direction; set cluster.metric = 'euclidean' or "
            f"cluster.silence = 'drop'"
        )
    return unit_rows(x_SD)
