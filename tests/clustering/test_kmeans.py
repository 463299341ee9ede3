"""k-means against Lloyd's algorithm written out, against scikit-learn, and on real features."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from gmp_atl_dist.audio import decode_pcm16, num_frames
from gmp_atl_dist.clustering.assignment import (
    BLOCK_ROWS,
    FaissAssigner,
    as_floats,
    make_assigner,
    nearest_ids,
    unit_rows,
)
from gmp_atl_dist.clustering.assignment_step import AssignmentStep, fit_in_memory
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.initialization import initial_centroids
from gmp_atl_dist.clustering.lloyd import advance
from gmp_atl_dist.clustering.state import Fit, Metric, State, state_from_bytes, state_to_bytes
from gmp_atl_dist.clustering.statistics import ClusterStatistics
from gmp_atl_dist.errors import ConfigError, ModelError

WHAT = "cluster.scales[0] (layer 9, all)"


def blobs(seed: int, count: int = 600, dim: int = 8, k: int = 6, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2.0, size=(k, dim))
    return (centres[rng.integers(k, size=count)] + spread * rng.normal(size=(count, dim))).astype(
        np.float32
    )


def distances(x_MD: np.ndarray, c_KD: np.ndarray) -> np.ndarray:
    x, c = x_MD.astype(np.float64), c_KD.astype(np.float64)
    return np.stack([np.square(x - centroid).sum(axis=1) for centroid in c], axis=1)


def mean_squared_distance(x_MD: np.ndarray, c_KD: np.ndarray) -> float:
    return float(distances(x_MD, c_KD).min(axis=1).mean())


def fitted(x_MD: np.ndarray, k: int, *, threads: int = 1, **keys: object) -> State:
    fit = Fit(WHAT, k, **{"seed": 0, "tolerance": 0.0, **keys})  # pyright: ignore[reportArgumentType]
    (state,) = fit_in_memory([fit], {"all": x_MD}, threads=threads)
    return state


def started(x_MD: np.ndarray, start_KD: np.ndarray, **keys: object) -> State:
    fit = Fit(WHAT, len(start_KD), 0, tolerance=0.0, **keys)  # pyright: ignore[reportArgumentType]
    (state,) = fit_in_memory([fit], {"all": x_MD}, threads=1, initial=[start_KD])
    return state


@pytest.mark.parametrize(("updates", "k", "dim"), [(1, 6, 8), (3, 6, 8), (10, 20, 24), (7, 1, 5)])
def test_from_the_same_start_it_is_scikit_learns_lloyd(updates: int, k: int, dim: int) -> None:
    x_MD = blobs(k, count=3 * BLOCK_ROWS + 5, dim=dim, spread=2.0)
    start_KD = initial_centroids(x_MD, k, init="k-means++", metric="euclidean", seed=1, what=WHAT)
    ours = started(x_MD, start_KD, iterations=updates)
    keys: dict[str, Any] = {"init": start_KD, "n_init": 1, "max_iter": updates, "tol": 0}
    theirs: Any = KMeans(k, algorithm="lloyd", **keys).fit(x_MD)

    scale = np.abs(theirs.cluster_centers_).max()
    assert np.abs(ours.centroids_KD - theirs.cluster_centers_).max() <= 1e-4 * scale
    assert ours.mean_squared_distances[-1] * len(x_MD) == pytest.approx(theirs.inertia_, rel=1e-5)
    assert (
        nearest_ids(FaissAssigner(ours.centroids_KD), x_MD) == theirs.predict(x_MD)
    ).mean() >= 0.9999


def test_it_is_faiss_kmeans_from_the_same_start() -> None:
    x_MD = blobs(5, count=5000, dim=16, k=12, spread=2.0)
    start_KD = x_MD[:12].copy()
    theirs = faiss.Kmeans(16, 12, niter=8, max_points_per_centroid=len(x_MD))
    theirs.train(x_MD, init_centroids=start_KD)
    ours = started(x_MD, start_KD, iterations=8)
    assert theirs.centroids is not None
    np.testing.assert_allclose(ours.centroids_KD, theirs.centroids, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_it_is_as_good_as_scikit_learn(seed: int, init: str) -> None:
    x_MD = blobs(seed, spread=2.0)
    keys: dict[str, Any] = {"n_init": 1, "max_iter": 50, "random_state": seed}
    theirs: Any = KMeans(6, init=init, **keys).fit(x_MD)
    ours = fitted(x_MD, 6, iterations=50, init=init)
    assert ours.mean_squared_distances[-1] <= 1.05 * theirs.inertia_ / len(x_MD)
    assert ours.mean_squared_distances[-1] == pytest.approx(
        mean_squared_distance(x_MD, ours.centroids_KD), rel=1e-5
    )


def test_the_mean_squared_distance_never_rises_and_a_tolerance_stops_early() -> None:
    x_MD = blobs(1, count=4000, spread=3.0)
    to_the_end = fitted(x_MD, 9, iterations=200)
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(to_the_end.mean_squared_distances))
    early = fitted(x_MD, 9, iterations=200, tolerance=1e-2)
    assert 0 < early.updates < to_the_end.updates < 200
    assert (
        early.mean_squared_distances
        == to_the_end.mean_squared_distances[: len(early.mean_squared_distances)]
    )
    falls = -np.diff(early.mean_squared_distances) / early.mean_squared_distances[:-1]
    assert (falls[:-1] > 1e-2).all()
    assert falls[-1] <= 1e-2


def test_all_frames_are_used() -> None:
    """FAISS takes 256 frames a centroid unless told: the mean would miss most of these."""
    rng = np.random.default_rng(0)
    x_MD = np.concatenate([rng.normal(size=(5_000, 3)), rng.normal(size=(7_001, 3)) + 50])
    x_MD = x_MD.astype(np.float32)
    state = fitted(x_MD, 2)
    assert state.counts_K is not None
    order = state.centroids_KD[:, 0].argsort()
    assert state.counts_K[order].tolist() == [5_000, 7_001]
    np.testing.assert_allclose(state.centroids_KD[order[0]], x_MD[:5_000].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(state.centroids_KD[order[1]], x_MD[5_000:].mean(axis=0), atol=1e-3)


def test_the_same_twice_and_another_seed_otherwise() -> None:
    x_MD = blobs(2, spread=3.0)
    first = fitted(x_MD, 6).centroids_KD.tobytes()
    assert fitted(x_MD, 6).centroids_KD.tobytes() == first
    assert fitted(x_MD, 6, seed=1).centroids_KD.tobytes() != first


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_threads_change_no_bit(metric: str) -> None:
    x_MD = blobs(2, count=9 * BLOCK_ROWS + 7, dim=24, k=40, spread=3.0).astype(np.float16)
    one, three = (fitted(x_MD, 40, threads=n, metric=metric, iterations=6) for n in (1, 3))
    assert one.centroids_KD.tobytes() == three.centroids_KD.tobytes()
    assert one.mean_squared_distances == three.mean_squared_distances


def test_scales_that_are_fitted_together_are_those_fitted_alone() -> None:
    frames = {"female": blobs(3, spread=2.0), "male": blobs(4, count=900, spread=2.0)}
    fits = [Fit(WHAT, k, k, group=group) for k in (3, 5, 8) for group in frames]
    together = fit_in_memory(fits, frames, threads=1)
    for fit, state in zip(fits, together, strict=True):
        (alone,) = fit_in_memory([fit], {fit.group: frames[fit.group]}, threads=1)
        assert state.centroids_KD.tobytes() == alone.centroids_KD.tobytes()
        assert state.mean_squared_distances == alone.mean_squared_distances


def test_sums_of_stored_frames_are_exact_in_any_order() -> None:
    x_MD = blobs(7, count=4000, dim=16).astype(np.float16)
    assigner = FaissAssigner(as_floats(x_MD[:9]))
    order = np.random.default_rng(0).permutation(len(x_MD))

    def total(rows_MD: np.ndarray, size: int) -> ClusterStatistics:
        found = ClusterStatistics.zero(9, 16)
        for start in range(0, len(rows_MD), size):
            found.add(ClusterStatistics.of(as_floats(rows_MD[start : start + size]), assigner))
        return found

    whole, pieces = total(x_MD, 1000), total(x_MD[order], 173)
    assert whole.sums_KD.tobytes() == pieces.sums_KD.tobytes()
    assert whole.counts_K.tolist() == pieces.counts_K.tolist()
    assert whole.mean_squared_distance == pytest.approx(pieces.mean_squared_distance, rel=1e-9)


def test_the_farthest_frames_are_found_whatever_the_pieces() -> None:
    x_MD = blobs(8, count=5000, dim=4, spread=3.0)
    assigner = FaissAssigner(x_MD[:3])
    total = ClusterStatistics.zero(3, 4)
    for start in range(0, len(x_MD), 321):
        total.add(ClusterStatistics.of(x_MD[start : start + 321], assigner))
    far = np.sort(distances(x_MD, x_MD[:3]).min(axis=1))[::-1][: len(total.far_squared_F)]
    np.testing.assert_allclose(total.far_squared_F, far, rtol=1e-5)
    assert (np.diff(total.far_squared_F) <= 0).all()


def test_an_empty_cluster_is_relocated_to_the_farthest_frame() -> None:
    x_MD = np.concatenate([np.zeros((50, 2)), np.ones((50, 2)), [[9.0, 9.0]]]).astype(np.float32)
    start_KD = np.array([[0, 0], [1, 1], [-40, -40]], np.float32)
    state = started(x_MD, start_KD)
    assert state.relocated == 1
    found = state.centroids_KD[state.centroids_KD[:, 0].argsort()]
    np.testing.assert_allclose(found, [[0, 0], [1, 1], [9, 9]], atol=1e-6)
    assert state.mean_squared_distances[-1] == pytest.approx(0, abs=1e-6)


def test_by_cosine_only_the_direction_counts() -> None:
    rng = np.random.default_rng(0)
    directions = unit_rows(rng.normal(size=(4, 6)).astype(np.float32))
    which = rng.integers(4, size=800)
    x_MD = unit_rows(directions[which] + 0.05 * rng.normal(size=(800, 6)).astype(np.float32))
    x_MD = x_MD * rng.uniform(0.1, 9.0, size=(800, 1)).astype(np.float32)
    state = fitted(x_MD, 4, metric="cosine", init="k-means++")
    np.testing.assert_allclose(np.linalg.norm(state.centroids_KD, axis=1), 1, atol=1e-6)
    ids = nearest_ids(FaissAssigner(state.centroids_KD, "cosine"), x_MD)
    pairs = {(int(a), int(b)) for a, b in zip(which, ids, strict=True)}
    assert len(pairs) == 4
    # fairseq assigns by Euclidean distance; with centroids of unit length that is the same.
    np.testing.assert_array_equal(nearest_ids(FaissAssigner(state.centroids_KD), x_MD), ids)
    x_MD[7] = 0
    with pytest.raises(ConfigError, match=r"scales\[0\].*all zeros and has no direction"):
        fitted(x_MD, 4, metric="cosine")


@pytest.mark.parametrize(
    ("x_MD", "k", "message"),
    [
        (blobs(3, count=9), 10, r"k = 10 is more than the 9 frames"),
        (np.ones((500, 4), np.float32), 2, r"k = 2 is more than the 1 different frames"),
        (np.tile(blobs(3, count=9), (9, 1)), 10, r"k = 10 is more than the 9 different frames"),
    ],
)
def test_too_few_frames_name_the_scale(x_MD: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.scales\[0\] \(layer 9, all\): {message}"):
        fitted(x_MD, k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_frame_that_is_not_finite_is_refused(value: float, dtype: type) -> None:
    x_MD = blobs(4, count=BLOCK_ROWS + 100).astype(dtype)
    start_KD = as_floats(x_MD[:6])
    x_MD[BLOCK_ROWS + 33, 2] = value
    with pytest.raises(ModelError, match=rf"frame {BLOCK_ROWS + 33} is not finite"):
        started(x_MD, start_KD)


def test_a_codebook_of_another_dimension_is_refused() -> None:
    with pytest.raises(ModelError, match=r"frames have 8 values and the codebook's centroids 6"):
        nearest_ids(FaissAssigner(blobs(0, dim=6)[:3]), blobs(0, dim=8))


@st.composite
def frames_with_duplicates(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Frames of which some are the same, and how many are different."""
    distinct, dim = draw(st.integers(1, 25)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    # Whole numbers, so that distances are exact and different frames are told apart.
    rows = rng.integers(-30, 30, size=(4 * distinct, dim)).astype(np.float16)
    rows = np.unique(rows, axis=0)[:distinct]
    times = rng.integers(1, draw(st.integers(2, 9)), size=len(rows))
    return rng.permutation(np.repeat(rows, times, axis=0)), len(rows)


@given(
    data=frames_with_duplicates(),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    init=st.sampled_from(["random", "k-means++"]),
)
def test_any_frames_and_any_k(
    data: tuple[np.ndarray, int], share: float, seed: int, init: str
) -> None:
    """k from 1 to the number of different frames, frames of which there are many, one-frame data."""
    x_MD, different = data
    k = 1 + round(share * (different - 1))
    state = fitted(x_MD, k, seed=seed, init=init, iterations=30)

    assert state.done
    assert state.counts_K is not None
    assert state.counts_K.sum() == len(x_MD)
    assert np.isfinite(state.centroids_KD).all()
    assert state.mean_squared_distances[-1] <= state.mean_squared_distances[0] + 1e-6
    assert state.mean_squared_distances[-1] == pytest.approx(
        mean_squared_distance(x_MD, state.centroids_KD), rel=1e-3, abs=1e-3
    )
    if k == 1:
        np.testing.assert_allclose(
            state.centroids_KD[0], x_MD.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-6
        )
    if k == different:
        assert state.counts_K.min() > 0
        assert state.mean_squared_distances[-1] == pytest.approx(0, abs=1e-3)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 200), k=st.integers(1, 20))
def test_assigned_is_the_nearest(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x_MD = rng.normal(size=(count, 5)).astype(np.float32)
    c_KD = rng.normal(size=(k, 5)).astype(np.float32)
    ids = nearest_ids(FaissAssigner(c_KD), x_MD)
    found = distances(x_MD, c_KD)

    assert ids.dtype == np.int32
    np.testing.assert_allclose(
        found[np.arange(count), ids], found.min(axis=1), rtol=1e-4, atol=1e-5
    )


class NumpyAssigner:
    """Another library behind the fit: every distance in fp64, without FAISS."""

    block_rows = BLOCK_ROWS

    def __init__(self, centroids_KD: np.ndarray, metric: Metric) -> None:
        self.metric: Metric = metric
        self.k, self.dim = centroids_KD.shape
        self._centroids_KD = centroids_KD

    def prepared(self, x_MD: np.ndarray) -> np.ndarray:
        x_MD = np.array(x_MD, np.float32)
        return unit_rows(x_MD) if self.metric == "cosine" else x_MD

    def nearest(self, x_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = distances(x_MD, self._centroids_KD)
        ids = np.where(np.isfinite(x_MD).all(axis=1), found.argmin(axis=1), -1)
        return ids, found.min(axis=1).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("empty", [False, True])
def test_another_library_fits_the_same_codebooks(metric: Metric, empty: bool) -> None:
    """Multiples of 2^-6: sums are exact, so the same assignments give the same bytes."""
    rng = np.random.default_rng(3)
    centres = rng.integers(-200, 200, size=(5, 6))
    x_MD = centres[rng.integers(5, size=2 * BLOCK_ROWS + 9)] + rng.integers(-90, 90, size=(4105, 6))
    x_MD = (x_MD / 64).astype(np.float16)
    start_KD = as_floats(x_MD[:7])
    if empty:
        start_KD[3] = 100.0
    fits = [Fit(WHAT, 7, 0, metric=metric, iterations=12, tolerance=0.0)]
    faiss_fit, numpy_fit = (
        fit_in_memory(fits, {"all": x_MD}, initial=[start_KD], step=AssignmentStep(2, make))[0]
        for make in (FaissAssigner, NumpyAssigner)
    )
    assert numpy_fit.updates == faiss_fit.updates > 3
    assert numpy_fit.centroids_KD.tobytes() == faiss_fit.centroids_KD.tobytes()
    assert numpy_fit.counts_K is not None
    assert faiss_fit.counts_K is not None
    assert numpy_fit.counts_K.tolist() == faiss_fit.counts_K.tolist()
    assert numpy_fit.relocated == faiss_fit.relocated
    assert numpy_fit.mean_squared_distances == pytest.approx(
        faiss_fit.mean_squared_distances, rel=1e-5
    )
    spoilt_MD = x_MD.copy()
    spoilt_MD[BLOCK_ROWS + 4, 1] = np.nan
    step = AssignmentStep(1, NumpyAssigner)
    with pytest.raises(ModelError, match=rf"frame {BLOCK_ROWS + 4} is not finite"):
        fit_in_memory(fits, {"all": spoilt_MD}, initial=[start_KD], step=step)


def test_the_state_of_a_fit_needs_neither_faiss_nor_torch() -> None:
    code = (
        "import sys, gmp_atl_dist.clustering.state, gmp_atl_dist.stages.layer_fit; "
        "sys.exit('faiss' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_half_precision_is_decoded_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].reshape(-1, 4)
    np.testing.assert_array_equal(as_floats(every), every.astype(np.float32))
    assert as_floats(every[:0]).shape == (0, 4)


def test_a_fit_resumed_from_its_checkpoint_has_the_same_bytes() -> None:
    x_MD = blobs(9, count=3000, spread=3.0)
    fit = Fit(WHAT, 7, 0, iterations=12, tolerance=0.0)

    def sums(state: State) -> ClusterStatistics:
        return ClusterStatistics.of(x_MD, FaissAssigner(state.centroids_KD))

    whole = State(x_MD[:7])
    kept: list[bytes] = []
    while not whole.done:
        kept.append(state_to_bytes(whole))
        whole = advance(fit, whole, sums(whole))
    resumed = state_from_bytes(kept[5])
    assert resumed is not None
    assert resumed.updates == 5
    while not resumed.done:
        resumed = advance(fit, resumed, sums(resumed))
    assert resumed.centroids_KD.tobytes() == whole.centroids_KD.tobytes()
    assert resumed.mean_squared_distances == whole.mean_squared_distances
    end = state_from_bytes(state_to_bytes(whole))
    assert end is not None
    assert end.done
    assert end.counts_K is not None
    assert end.counts_K.sum() == len(x_MD)


def test_a_damaged_checkpoint_is_none() -> None:
    data = state_to_bytes(State(blobs(0)[:3], (2.0, 1.0)))
    for damaged in (b"", data[:20], data[:-4], data + b"x", b"\x80\x04N." + data):
        assert state_from_bytes(damaged) is None


def test_one_changed_value_of_a_checkpoint_is_noticed() -> None:
    """safetensors loads it; the fit would continue from another centroid."""
    data = bytearray(state_to_bytes(State(blobs(0)[:3], (2.0, 1.0), counts_K=np.ones(3))))
    assert state_from_bytes(bytes(data)) is not None
    for offset in (-1, -30):
        data[offset] ^= 1
        assert state_from_bytes(bytes(data)) is None
        data[offset] ^= 1
    assert state_from_bytes(bytes(data)) is not None


def test_without_a_frame_there_is_nothing_to_fit() -> None:
    with pytest.raises(ModelError, match=r"scales\[0\].*there is no frame to fit"):
        advance(Fit(WHAT, 2, 0), State(blobs(0)[:2]), ClusterStatistics.zero(2, 8))


@pytest.fixture(scope="module")
def real_features(data_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Layer 9 of the public base model for one utterance, and its labels of fairseq at k = 500."""
    folder = data_root / "hubert_features"
    if not folder.is_dir():
        pytest.skip("no hubert_features in the test data")
    labels = (folder / "sample.base.L9.km500.km").read_text().split()
    return np.load(folder / "sample.base.L9.npy"), np.array(labels, dtype=np.int64)


def test_real_frames_are_as_many_as_the_recording_says(
    data_root: Path, real_features: tuple[np.ndarray, np.ndarray]
) -> None:
    folder = data_root / "hubert_features"
    x_TD, labels_T = real_features
    pcm16 = decode_pcm16((folder / "6313-76958-0021.flac").read_bytes())
    stored = int((folder / "sample.base.L9.len").read_text())

    assert num_frames(len(pcm16)) == stored == len(x_TD) == len(labels_T) == 596
    assert x_TD.shape[1] == 768


def test_real_frames_go_to_the_mean_of_their_label(
    real_features: tuple[np.ndarray, np.ndarray],
) -> None:
    x_TD, labels_T = real_features
    used = np.unique(labels_T)
    means_KD = np.stack([x_TD[labels_T == label].mean(axis=0) for label in used])
    ids = nearest_ids(FaissAssigner(means_KD), x_TD)

    # They were made by other centroids, so that a frame near a border may go the other way.
    assert (used[ids] == labels_T).mean() > 0.9
    np.testing.assert_array_equal(ids, distances(x_TD, means_KD).argmin(axis=1))


def test_half_precision_flips_no_label_of_real_frames(
    real_features: tuple[np.ndarray, np.ndarray],
) -> None:
    x_TD, _ = real_features
    assigner = FaissAssigner(fitted(x_TD, 50).centroids_KD)
    narrow = x_TD.astype(np.float16)
    assert (nearest_ids(assigner, narrow) != nearest_ids(assigner, x_TD)).mean() < 0.005


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["faiss", "torch"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_gpu_fits_what_the_cpu_fits(engine: Engine, metric: Metric) -> None:
    from gmp_atl_dist.device import faiss_gpus, gpu_count

    most = faiss_gpus() if engine == "faiss" else gpu_count()
    if not most:
        pytest.skip(f"{engine} sees no GPU here")
    x_MD = blobs(3, count=400_000, dim=256, k=64, spread=3.0).astype(np.float16)
    start_KD = as_floats(x_MD[:256])
    start_KD = unit_rows(start_KD) if metric == "cosine" else start_KD
    fit = Fit(WHAT, 256, 0, metric=metric, iterations=10, tolerance=0.0)
    (cpu,) = fit_in_memory([fit], {"all": x_MD}, initial=[start_KD])
    scale = np.abs(cpu.centroids_KD).max()
    found: set[bytes] = set()
    for gpus in range(1, most + 1):
        twice = [
            fit_in_memory([fit], {"all": x_MD}, initial=[start_KD], gpus=gpus, engine=engine)
            for _ in range(2)
        ]
        found.update(state_to_bytes(gpu) for (gpu,) in twice)
        (gpu,) = twice[-1]
        assert np.abs(gpu.centroids_KD - cpu.centroids_KD).max() <= 1e-3 * scale
        labels = [
            nearest_ids(make_assigner(cpu.centroids_KD, metric, n, engine), x_MD) for n in (0, gpus)
        ]
        assert (labels[0] == labels[1]).mean() >= 0.9999
    # Neither the order in which a GPU adds nor the number of GPUs changes a byte.
    assert len(found) == 1
