"""k-means against Lloyd's algorithm written out, against scikit-learn, and on real features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from gmp_atl_dist.audio import decode_pcm16, num_frames
from gmp_atl_dist.clustering.kmeans import Assigner, fit, sample_frames
from gmp_atl_dist.errors import ConfigError, ModelError


def blobs(seed: int, count: int = 600, dim: int = 8, k: int = 6, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2.0, size=(k, dim))
    return (centres[rng.integers(k, size=count)] + spread * rng.normal(size=(count, dim))).astype(
        np.float32
    )


def distances(x_MD: np.ndarray, c_KD: np.ndarray) -> np.ndarray:
    x, c = x_MD.astype(np.float64), c_KD.astype(np.float64)
    return np.stack([np.square(x - centroid).sum(axis=1) for centroid in c], axis=1)


def inertia(x_MD: np.ndarray, c_KD: np.ndarray) -> float:
    return float(distances(x_MD, c_KD).min(axis=1).sum())


def lloyd(x_MD: np.ndarray, c_KD: np.ndarray, iterations: int) -> np.ndarray:
    c_KD = c_KD.astype(np.float64)
    for _ in range(iterations):
        nearest = distances(x_MD, c_KD).argmin(axis=1)
        c_KD = np.stack([x_MD[nearest == k].mean(axis=0) for k in range(len(c_KD))])
    return c_KD


def fitted(x_MD: np.ndarray, k: int, iterations: int = 25, seed: int = 0) -> np.ndarray:
    return fit(x_MD, k, iterations=iterations, seed=seed, what="cluster.scales[0] (layer 9, all)")


def test_one_more_iteration_is_one_step_of_lloyd() -> None:
    x_MD = blobs(0)
    for iterations in (1, 2, 3, 10):
        np.testing.assert_allclose(
            fitted(x_MD, 6, iterations + 1),
            lloyd(x_MD, fitted(x_MD, 6, iterations), 1),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_good_as_scikit_learn_from_random_frames(seed: int) -> None:
    x_MD = blobs(seed, spread=2.0)
    kmeans = KMeans(6, init="random", max_iter=50, random_state=seed)
    theirs = kmeans.set_params(n_init=1).fit(x_MD).cluster_centers_
    assert inertia(x_MD, fitted(x_MD, 6, 50)) <= 1.05 * inertia(x_MD, theirs)


def test_centroids_are_where_lloyd_stays() -> None:
    x_MD = blobs(1)
    found = fitted(x_MD, 6, 100)
    np.testing.assert_allclose(lloyd(x_MD, found, 1), found, rtol=1e-4, atol=1e-4)


def test_all_frames_are_used() -> None:
    """FAISS takes 256 frames a centroid unless told: the mean would miss most of these."""
    rng = np.random.default_rng(0)
    x_MD = np.concatenate([rng.normal(size=(5_000, 3)), rng.normal(size=(7_001, 3)) + 50])
    x_MD = x_MD.astype(np.float32)
    found = fitted(x_MD, 2)
    found = found[found[:, 0].argsort()]
    np.testing.assert_allclose(found[0], x_MD[:5_000].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found[1], x_MD[5_000:].mean(axis=0), atol=1e-3)


def test_the_same_twice_and_another_seed_otherwise() -> None:
    x_MD = blobs(2, spread=3.0)
    assert fitted(x_MD, 6).tobytes() == fitted(x_MD, 6).tobytes()
    assert fitted(x_MD, 6).tobytes() != fitted(x_MD, 6, seed=1).tobytes()


def test_as_many_clusters_as_frames() -> None:
    x_MD = blobs(3, count=9)
    assert inertia(x_MD, fitted(x_MD, 9)) == pytest.approx(0, abs=1e-3)


def test_more_clusters_than_frames_names_the_scale() -> None:
    with pytest.raises(
        ConfigError,
        match=r"cluster\.scales\[0\] \(layer 9, all\): k = 10 is more than the 9 frames",
    ):
        fitted(blobs(3, count=9), 10)


def test_frames_that_are_not_finite_are_refused() -> None:
    x_MD = blobs(4)
    x_MD[::3, 0] = np.inf
    with pytest.raises(ModelError, match=r"cluster\.scales\[0\].*not finite"):
        fitted(x_MD, 6)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 200), k=st.integers(1, 20))
def test_assigned_is_the_nearest(seed: int, count: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x_MD = rng.normal(size=(count, 5)).astype(np.float32)
    c_KD = rng.normal(size=(k, 5)).astype(np.float32)
    ids = Assigner(c_KD).assign(x_MD)
    found = distances(x_MD, c_KD)

    assert ids.dtype == np.int32
    np.testing.assert_allclose(
        found[np.arange(count), ids], found.min(axis=1), rtol=1e-4, atol=1e-5
    )


def spoken(seed: int, utterances: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (f"u{i}", rng.normal(size=(int(rng.integers(1, 120)), 3)).astype(np.float16))
        for i in range(utterances)
    ]


def rows(x_MD: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, x_MD.tolist()))


@given(seed=st.integers(0, 1000), utterances=st.integers(1, 30), limit=st.integers(1, 2_000))
def test_the_sample_does_not_depend_on_the_order_of_utterances(
    seed: int, utterances: int, limit: int
) -> None:
    frames = spoken(seed, utterances)
    total = sum(len(x) for _, x in frames)
    forward = sample_frames(frames, total, limit, "key")

    assert rows(sample_frames(reversed(frames), total, limit, "key")) == rows(forward)
    assert forward.dtype == np.float32
    # Each utterance's share is rounded up or down, so the total is near the limit.
    assert abs(len(forward) - min(limit, total)) <= utterances


def test_below_the_limit_every_frame_is_taken_in_order() -> None:
    frames = spoken(0, 5)
    total = sum(len(x) for _, x in frames)
    whole = np.concatenate([x for _, x in frames]).astype(np.float32)
    np.testing.assert_array_equal(sample_frames(frames, total, total, "key"), whole)


def test_every_utterance_gives_its_share() -> None:
    x_TD = np.arange(1000, dtype=np.float16)[:, None]
    frames = [(f"u{i}", x_TD + np.float16(0)) for i in range(20)]
    sample = sample_frames(frames, 20_000, 2_000, "key")

    assert len(sample) in range(1980, 2021)
    # Without replacement, and spread over the utterance.
    assert len(np.unique(sample[:100])) == 100
    assert 400 < float(sample.mean()) < 600


def test_another_key_takes_other_frames() -> None:
    frames = spoken(0, 20)
    total = sum(len(x) for _, x in frames)
    assert rows(sample_frames(frames, total, 100, "a")) != rows(
        sample_frames(frames, total, 100, "b")
    )


def test_no_frames_are_an_empty_sample() -> None:
    assert len(sample_frames([], 0, 100, "key")) == 0


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
    ids = Assigner(means_KD).assign(x_TD)

    # They were made by other centroids, so that a frame near a border may go the other way.
    assert (used[ids] == labels_T).mean() > 0.9
    np.testing.assert_array_equal(ids, distances(x_TD, means_KD).argmin(axis=1))


def test_half_precision_flips_no_label_of_real_frames(
    real_features: tuple[np.ndarray, np.ndarray],
) -> None:
    x_TD, _ = real_features
    centroids_KD = fitted(x_TD, 50)
    assigner = Assigner(centroids_KD)
    narrow = x_TD.astype(np.float16).astype(np.float32)
    assert (assigner.assign(narrow) != assigner.assign(x_TD)).mean() < 0.005
