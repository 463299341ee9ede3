"""The bytes of features on a CPU: they do not depend on the batch, and work on GPUs must not change them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch

from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.inference.forward import Forward
from gmp_atl_dist.models.backbone import FrameModel
from gmp_atl_dist.models.hubert import Hubert, build_random
from gmp_atl_dist.models.packed import PackedHubert
from gmp_atl_dist.store.features import UtteranceFrames

torch.set_num_threads(1)

LAYERS = (1, 3)
LENGTHS = [16_000, 400, 32_000, 8000, 24_000, 16_000, 719, 30_000, 400]
PINNED = {
    # The first frame of u0, the last one of u2: the first four values of each.
    1: ([2.5, 0.4038, 0.097, 0.0469], [1.7529, 1.5928, -0.3689, -1.4551]),
    3: ([2.543, 0.4192, 0.0734, 0.0869], [1.7549, 1.6465, -0.3857, -1.4355]),
}


def waves() -> list[np.ndarray]:
    """int16 chirps with noise from whole numbers alone, so they are the same on every machine."""
    found: list[np.ndarray] = []
    for number, n in enumerate(LENGTHS):
        t = np.arange(n, dtype=np.int64)
        tone = (t * (t % 997) * (number + 3)) % 12_007 - 6003
        noise = (t * 1_103_515_245 + 12_345 * (number + 1)) // 65_536 % 2001 - 1000
        found.append((tone + noise).astype("<i2"))
    return found


@cache
def model() -> Hubert:
    return build_random("tiny", 11)


def table(rows: Sequence[int]) -> pa.Table:
    clips = waves()
    return pa.table(
        {
            "utterance_id": [f"u{row}" for row in rows],
            "num_samples": [len(clips[row]) for row in rows],
            "pcm16": [clips[row].tobytes() for row in rows],
        }
    )


def digests(features: dict[int, list[UtteranceFrames]]) -> dict[tuple[str, int], str]:
    return {
        (u.utterance_id, layer): hashlib.sha256(u.frames_TD.tobytes()).hexdigest()
        for layer, rows in features.items()
        for u in rows
    }


def frame_model() -> FrameModel:
    return model().frame_model(LAYERS, window_frames=60, context_frames=10)


@cache
def together() -> dict[int, list[UtteranceFrames]]:
    forward = Forward(frame_model(), LAYERS, 60.0)
    return forward(table(range(len(LENGTHS))))


def test_a_clip_alone_has_the_bytes_of_a_batch() -> None:
    """Digest by digest, without a tolerance; batches of one second hold one clip, or two of 400 samples."""
    expected = digests(together())
    assert len(set(expected.values())) == 2 * len(LENGTHS)
    for batch_s in (1.0, 2.5):
        forward = Forward(frame_model(), LAYERS, batch_s)
        assert digests(forward(table(range(len(LENGTHS))))) == expected
    alone = Forward(frame_model(), LAYERS, None)
    for row in range(len(LENGTHS)):
        found = digests(alone(table([row])))
        assert found == {key: expected[key] for key in found}


def test_features_of_a_cpu_are_those_of_the_packed_model() -> None:
    """Not those of the slots of a GPU, which differ in the last bits."""
    packed = frame_model()
    assert isinstance(packed, PackedHubert)
    for row, clip in enumerate(waves()):
        (output,) = packed([torch.from_numpy(pcm16_to_float(clip))], 10**6)
        for layer in LAYERS:
            stored = together()[layer][row].frames_TD
            assert stored.dtype == np.float16
            assert stored.tobytes() == output[layer].half().numpy().tobytes()


def test_the_function_is_the_one_that_it_was() -> None:
    """Values that were computed on 2026-11-26. Processors differ in the last bits, hence the tolerance."""
    for layer, (first, last) in PINNED.items():
        rows = together()[layer]
        assert rows[0].frames_TD[0, :4].tolist() == pytest.approx(first, abs=4e-3)
        assert rows[2].frames_TD[-1, :4].tolist() == pytest.approx(last, abs=4e-3)
