"""What a search for nearest centroids answers is checked before anything is made of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gmp_atl_dist.clustering.answers import checked_nearest
from gmp_atl_dist.clustering.assignment import FaissAssigner, nearest_ids
from gmp_atl_dist.clustering.state import Metric
from gmp_atl_dist.clustering.statistics import ClusterStatistics, NotFiniteError
from gmp_atl_dist.errors import WorkerError

CENTROIDS_KD = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], np.float32)


class LikeGpu(FaissAssigner):
    """FAISS 1.14 on a GPU: cluster 0 for a frame that is not finite; ``distance`` is its distance."""

    distance: float = float("nan")

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids_M, squared_M = super().nearest(x_MD)
        squared_M = np.where(ids_M < 0, np.float32(self.distance), squared_M)
        return np.where(ids_M < 0, 0, ids_M), squared_M


def frames(bad: float) -> np.ndarray:
    x_MD = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    x_MD[5, 1] = bad
    return x_MD


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("distance", [np.nan, np.inf, float(np.finfo(np.float32).max), 0.0, 1e9])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_frame_that_is_not_finite_is_named_whatever_the_library_says(
    bad: float, distance: float, metric: Metric
) -> None:
    assigner = LikeGpu(CENTROIDS_KD, metric)
    assigner.distance = distance
    x_MD = frames(bad)
    with pytest.raises(NotFiniteError) as e, np.errstate(invalid="ignore"):
        ClusterStatistics.of(assigner.prepared(x_MD), assigner)
    assert e.value.row == 5
    ids_M = nearest_ids(assigner, x_MD)
    assert np.flatnonzero(ids_M < 0).tolist() == [5]


def test_finite_frames_are_as_before() -> None:
    assigner = FaissAssigner(CENTROIDS_KD)
    x_MD = frames(0.5)
    ids_M, squared_M = checked_nearest(assigner, x_MD)
    plain_M, distances_M = assigner.nearest(x_MD)
    assert ids_M.tobytes() == plain_M.tobytes()
    assert squared_M.tobytes() == distances_M.tobytes()
    assert checked_nearest(assigner, x_MD[:0])[0].shape == (0,)


OUTSIDE = """
import numpy as np
from gmp_atl_dist.clustering.assignment import FaissAssigner
from gmp_atl_dist.clustering.statistics import ClusterStatistics
from gmp_atl_dist.errors import WorkerError

class Outside(FaissAssigner):
    def nearest(self, x_MD):
        ids_M, squared_M = super().nearest(x_MD)
        ids_M[3] = 1 << 40
        return ids_M, squared_M

try:
    ClusterStatistics.of(np.ones((9, 2), np.float32), Outside(np.eye(2, dtype=np.float32)))
except WorkerError as e:
    print(e)
"""


def test_an_id_outside_the_codebook_ends_no_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.returncode
    assert f"cluster {1 << 40} of 2 for row 3 of a block of 9 frames" in done.stdout
    assert "FAISS 1.15" in done.stdout


def test_minus_one_for_a_finite_frame_and_missing_answers_are_errors() -> None:
    class Lazy(FaissAssigner):
        def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            ids_M, squared_M = super().nearest(x_MD)
            return np.full_like(ids_M, -1), squared_M

    class Short(FaissAssigner):
        def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            ids_M, squared_M = super().nearest(x_MD)
            return ids_M[:-1], squared_M[:-1]

    for kind in (Lazy, Short):
        with pytest.raises(WorkerError, match="nearest centroids gave"):
            checked_nearest(kind(CENTROIDS_KD), frames(0.5))
