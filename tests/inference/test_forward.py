"""Batches that fit, and what happens to one that does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.lanes import LateLane, late_lanes
from torch import Tensor

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.errors import ModelError, WorkerError
from gmp_atl_dist.inference.forward import Forward, fit_budget_s
from gmp_atl_dist.models.hubert import build_random
from gmp_atl_dist.models.packed_slots import SlotHubert

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
NO_HANDLE = RuntimeError(
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
)


class Small:
    """A device that runs out of memory beyond ``room`` samples; features are the frame's number."""

    def __init__(self, room: int = 10**9, error: RuntimeError = OUT_OF_MEMORY) -> None:
        self.room = room
        self.error = error
        self.batches: list[list[int]] = []

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
        lengths = [len(wave) for wave in waves]
        self.batches.append(lengths)
        if sum(lengths) > self.room:
            raise self.error
        return [
            {6: torch.arange(num_frames(n))[:, None] * torch.ones(1, 4) + 1000 * float(wave[0])}
            for n, wave in zip(lengths, waves, strict=True)
        ]


def recordings(lengths: Sequence[int]) -> pa.Table:
    return pa.table(
        {
            "utterance_id": [f"u{i:03d}" for i in range(len(lengths))],
            "num_samples": lengths,
            "pcm16": [np.full(n, i, dtype="<i2").tobytes() for i, n in enumerate(lengths)],
        }
    )


LENGTHS = [16000, 400, 32000, 8000, 24000, 16000, 719, 30000]


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NO_HANDLE])
def test_memory_that_runs_out_costs_no_recording(error: RuntimeError) -> None:
    small, large = Small(50_000, error), Small()
    found = Forward(small, (6,), 10.0)(recordings(LENGTHS))
    expected = Forward(large, (6,), 10.0)(recordings(LENGTHS))

    assert len(large.batches) == 1 or sum(map(len, large.batches)) == len(LENGTHS)
    assert len(small.batches) > len(large.batches)
    assert [u.utterance_id for u in found[6]] == [f"u{i:03d}" for i in range(len(LENGTHS))]
    for ours, theirs in zip(found[6], expected[6], strict=True):
        np.testing.assert_array_equal(ours.frames_TD, theirs.frames_TD)


def test_a_budget_that_was_too_large_stays_small() -> None:
    small = Small(room=50_000)
    forward = Forward(small, (6,), 10.0)
    forward(recordings(LENGTHS))
    assert forward.budget_samples < 10 * SAMPLE_RATE_HZ
    tried = len(small.batches)
    forward(recordings(LENGTHS))
    assert all(sum(b) <= 50_000 for b in small.batches[tried:])


def test_another_error_of_the_device_is_no_reason_for_smaller_batches() -> None:
    broken = Small(1000, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        Forward(broken, (6,), 10.0)(recordings(LENGTHS))
    assert len(broken.batches) == 1


def test_a_recording_that_never_fits_is_named() -> None:
    with pytest.raises(WorkerError, match=r"utterance 'u002' of 2\.0 s does not fit.*max_window_s"):
        Forward(Small(room=1000), (6,), 10.0)(recordings([400, 500, 32000]))


def test_no_recording_is_no_trouble() -> None:
    assert Forward(Small(), (6,), None)(recordings([])) == {6: []}


def test_a_model_with_other_frames_is_refused() -> None:
    class Wrong(Small):
        def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
            return [{6: torch.zeros(7, 4)} for _ in waves]

    with pytest.raises(
        ModelError, match=r"utterance 'u000': the model gave \[7\] frames, expected 49"
    ):
        Forward(Wrong(), (6,), None)(recordings([16000]))


def test_samples_of_another_number_than_the_index_says_are_refused() -> None:
    table = recordings([16000]).set_column(1, "num_samples", pa.array([15999]))
    with pytest.raises(ModelError, match="'u000' has 16000 samples in the store, expected 15999"):
        Forward(Small(), (6,), None)(table)


@given(
    base=st.integers(0, 10**9),
    slope=st.integers(1, 10**8),
    free=st.integers(10**8, 10**11),
)
def test_the_budget_stays_within_what_is_free(base: int, slope: int, free: int) -> None:
    budget_s = fit_budget_s((10.0, 40.0), (base + 10 * slope, base + 40 * slope), free)
    assert budget_s == 1.0 or budget_s * slope <= free
    assert fit_budget_s((10.0, 40.0), (base, base), free) == 40.0


def with_lanes(model: object, layers: tuple[int, ...]) -> tuple[Forward, list[LateLane]]:
    with late_lanes() as lanes:
        return Forward(model, layers, 60.0), lanes  # pyright: ignore[reportArgumentType]


def noise(lengths: Sequence[int]) -> pa.Table:
    rng = np.random.default_rng(0)
    pcm16 = [(3000 * rng.standard_normal(n)).astype("<i2").tobytes() for n in lengths]
    return recordings(lengths).set_column(2, "pcm16", pa.array(pcm16))


def test_a_part_is_two_copies_to_the_device_and_one_per_layer_back() -> None:
    """One clip at a time took 8 copies there and 16 back for these 8 recordings and 2 layers."""
    model = SlotHubert(
        build_random("tiny", 3),
        (2, 3),
        window_frames=100,
        context_frames=20,
        half=False,
        flash=False,
    )
    forward, (lane, other) = with_lanes(model, (2, 3))
    found = forward(noise(LENGTHS))
    assert (lane.sent, lane.fetched) == (2, 2 + 1)
    assert (other.sent, other.fetched) == (0, 0)
    plain = build_random("tiny", 3).frame_model((2, 3), window_frames=100, context_frames=20)
    expected = Forward(plain, (2, 3), 60.0)(noise(LENGTHS))
    for layer in (2, 3):
        for ours, theirs in zip(found[layer], expected[layer], strict=True):
            assert ours.utterance_id == theirs.utterance_id
            np.testing.assert_allclose(
                ours.frames_TD.astype(np.float32), theirs.frames_TD.astype(np.float32), atol=4e-3
            )


def test_two_parts_are_in_work_and_the_third_waits_for_the_first() -> None:
    forward, (first, second) = with_lanes(Small(), (6,))
    waiting = [forward.start(recordings([16000, 400])) for _ in range(2)]
    # Each lane waited once, for nothing, before its first part.
    assert (first.waits, second.waits) == (1, 1)
    forward.start(recordings([719]))
    assert (first.waits, second.waits) == (2, 1)
    for features in waiting:
        assert [len(u.frames_TD) for u in features()[6]] == [49, 1]
        assert all(np.isfinite(u.frames_TD).all() for u in features()[6])


def test_a_value_that_is_not_finite_shows_when_the_features_are_there() -> None:
    class Infinite(Small):
        def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]:
            outputs = super().__call__(waves, most_frames)
            for output, wave in zip(outputs, waves, strict=True):
                if len(wave) == 719:
                    output[6][0, 1] = 1e6
            return outputs

    forward, _ = with_lanes(Infinite(), (6,))
    features = forward.start(recordings([16000, 719, 400]))
    with pytest.raises(
        ModelError,
        match="utterance 'u001': layer 6 has features that are not finite in fp16 at frame 0 ",
    ):
        features()


def test_a_refused_table_takes_no_lane_with_it() -> None:
    forward = Forward(Small(), (6,), 10.0)
    wrong = recordings([16000]).set_column(1, "num_samples", pa.array([15999]))
    for _ in range(3):
        with pytest.raises(ModelError, match="expected 15999"):
            forward(wrong)
    assert len(forward(recordings([400]))[6]) == 1


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NO_HANDLE])
def test_a_probe_that_does_not_fit_is_one_message(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(probe: object) -> int:
        raise error

    monkeypatch.setattr("gmp_atl_dist.inference.forward.has_gpu", lambda: True)
    monkeypatch.setattr("gmp_atl_dist.inference.forward.gpu_peak_bytes", full)
    with pytest.raises(
        WorkerError, match="a probe of 120 s of audio, to fit batches to the memory"
    ):
        Forward(Small(room=1000), (6,), None)
