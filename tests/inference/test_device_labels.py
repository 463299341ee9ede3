"""Labels of frames that are on a device: copies of a part, and frames that are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from support.lanes import LateLane, late_lanes

from gmp_atl_dist.clustering.assignment import make_assigner, nearest_ids
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.inference.device_labels import DeviceLabels, LabelledLayer
from gmp_atl_dist.inference.forward import Forward
from gmp_atl_dist.models.hubert import build_random
from gmp_atl_dist.models.packed_slots import SlotHubert
from gmp_atl_dist.transfers import HostLane

LAYERS = (2, 3)
LENGTHS = [16000, 400, 32000, 8000, 24000, 16000, 719, 30000]
CPU = torch.device("cpu")


def noise(lengths: Sequence[int]) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "utterance_id": [f"u{i:03d}" for i in range(len(lengths))],
            "num_samples": lengths,
            "pcm16": [(3000 * rng.standard_normal(n)).astype("<i2").tobytes() for n in lengths],
        }
    )


def slots() -> SlotHubert:
    windows = {"window_frames": 100, "context_frames": 20}
    return SlotHubert(build_random("tiny", 3), LAYERS, **windows, half=False, flash=False)


def centroids(frames_MD: np.ndarray, k: int) -> np.ndarray:
    rows = np.random.default_rng(k).permutation(len(frames_MD))[:k]
    return frames_MD[rows].astype(np.float32)


def test_a_part_is_two_copies_to_the_device_and_its_labels_back() -> None:
    """With features there were one copy per layer and one of their range: 128 bytes a frame here."""
    table = noise(LENGTHS)
    with late_lanes() as (lane, other):
        forward = Forward(slots(), LAYERS, 60.0)
        features = forward(table)
        whole = {i: np.concatenate([u.frames_TD for u in features[i]]) for i in LAYERS}
        assert lane.fetched_bytes >= 128 * len(whole[2])
        books = [
            LabelledLayer("a", 2, "euclidean", centroids(whole[2], 7)),
            LabelledLayer("b", 3, "cosine", centroids(whole[3], 50)),
            LabelledLayer("c", 3, "euclidean", centroids(whole[3], 2)),
        ]
        lanes: dict[Engine, LateLane] = {"torch": other, "faiss": lane}
        for engine, used in lanes.items():
            before = used.sent, used.fetched, used.fetched_bytes
            waiting = forward.start_batches(table, DeviceLabels(books, engine, CPU))
            found = {
                name: labels_CT for batch in waiting() for name, labels_CT in batch.utterances()
            }
            copies = np.subtract((used.sent, used.fetched, used.fetched_bytes), before)
            assert copies.tolist() == [2, 1, 4 * len(books) * len(whole[2])]
            assert len(found) == len(LENGTHS)
            for number, book in enumerate(books):
                assigner = make_assigner(book.centroids_KD, book.metric)
                for u in features[book.layer]:
                    expected_T = nearest_ids(assigner, u.frames_TD)
                    np.testing.assert_array_equal(found[u.utterance_id][number], expected_T)


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_a_frame_that_is_not_finite_is_named(engine: Engine) -> None:
    """Also one that is finite in fp32 and too large for fp16, as stored features are."""
    book = LabelledLayer("abc", 6, "euclidean", np.eye(3, 4, dtype=np.float32))
    labels = DeviceLabels([book], engine, CPU)
    for wrong in (float("nan"), float("inf"), 1e6):
        x_MD = torch.ones(9, 4)
        x_MD[6, 1] = wrong
        started = labels({6: x_MD}, ["a", "b"], [4, 5], HostLane())
        with pytest.raises(ModelError, match=r"'b': layer 6 .* not finite in fp16 at frame 2 \("):
            list(started.utterances())


def test_centroids_of_another_model_are_refused() -> None:
    book = LabelledLayer("abc", 6, "euclidean", np.eye(3, 4, dtype=np.float32))
    with pytest.raises(
        ModelError, match=r"codebook abc has centroids of 4 values, .* layer 6 have 5"
    ):
        DeviceLabels([book], "torch", CPU)({6: torch.ones(2, 5)}, ["a"], [2], HostLane())
