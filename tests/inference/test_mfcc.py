"""MFCC against Kaldi's definition written out a frame and a band at a time, and against torchaudio."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.kernels import KernelCounter
from support.lanes import late_lanes

from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.inference.device_mfcc import MFCC_LAYER, DeviceMfcc
from gmp_atl_dist.inference.forward import Forward
from gmp_atl_dist.inference.mfcc import MFCC_DIM, differences, mfcc
from gmp_atl_dist.inference.mfcc_extractor import MfccArgument, MfccExtractor
from gmp_atl_dist.models.slots import SlotLayout
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.features import UtteranceFrames, read_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.transfers import HostLane

RATE_HZ = 16000


def voice(num_samples: int, seed: int = 0) -> np.ndarray:
    """A gliding buzz with noise and a pause, off centre, as 16-bit recordings are."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(120 + 60 * np.sin(3 * time_s)) / RATE_HZ
    wave = sum(np.sin(h * phase) / h for h in range(1, 20)) + 0.05 * rng.standard_normal(
        num_samples
    )
    wave = 0.1 * wave * (np.sin(5 * time_s) > -0.5) + 0.01
    return pcm16_to_float((wave * 32767).clip(-32768, 32767).astype(np.int16))


def mel(hz: float) -> float:
    return 1127.0 * math.log(1.0 + hz / 700.0)


def kaldi_frame(frame: list[float]) -> list[float]:
    """13 cepstra of 400 samples, by Kaldi's definition (feature-window, mel-computations, feature-mfcc)."""
    mean = sum(frame) / 400
    centred = [x - mean for x in frame]
    emphasised = [x - 0.97 * centred[max(i - 1, 0)] for i, x in enumerate(centred)]
    windowed = np.zeros(512)
    for i, x in enumerate(emphasised):
        windowed[i] = x * (0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85
    bins = np.arange(512)
    power = [abs(np.sum(windowed * np.exp(-2j * np.pi * k * bins / 512))) ** 2 for k in range(256)]
    low, high = mel(20.0), mel(8000.0)
    step = (high - low) / 24
    log_energies: list[float] = []
    for band in range(23):
        left, centre, right = (low + (band + side) * step for side in range(3))
        energy = 0.0
        for k in range(256):
            at = mel(k * RATE_HZ / 512)
            if left < at <= centre:
                energy += power[k] * (at - left) / (centre - left)
            elif centre < at < right:
                energy += power[k] * (right - at) / (right - centre)
        log_energies.append(math.log(max(energy, 2.0**-23)))
    found: list[float] = []
    for c in range(13):
        scale = math.sqrt((1 if c == 0 else 2) / 23)
        value = sum(
            e * math.cos(math.pi / 23 * (band + 0.5) * c) for band, e in enumerate(log_energies)
        )
        found.append(scale * value * (1 + 11 * math.sin(math.pi * c / 22)))
    return found


def kaldi_deltas(rows: np.ndarray) -> np.ndarray:
    """(sum of n * (x[t + n] - x[t - n])) / (2 * sum of n * n) for n of 1 and 2, indices cut at the ends."""
    last = len(rows) - 1
    found = np.zeros_like(rows)
    for t in range(len(rows)):
        for n in (1, 2):
            found[t] += n * (rows[min(t + n, last)] - rows[max(t - n, 0)]) / 10
    return found


@pytest.mark.parametrize("num_samples", [400, 559, 560, 720, 4000])
def test_it_is_kaldis(num_samples: int) -> None:
    wave = voice(num_samples, seed=num_samples)
    frames = 1 + (num_samples - 400) // 160
    static = np.array(
        [kaldi_frame(wave[160 * t : 160 * t + 400].astype(float).tolist()) for t in range(frames)]
    )
    first = kaldi_deltas(static)
    expected = np.concatenate([static, first, kaldi_deltas(first)], axis=1)[::2]

    found = mfcc(wave)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_digital_silence_is_finite_and_even() -> None:
    found = mfcc(np.zeros(8000, np.float32))
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() == 0


def test_it_is_torchaudios() -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    functional = pytest.importorskip("torchaudio.functional")
    for num_samples in (400, 719, 720, 50_000):
        wave = voice(num_samples)
        cepstra_FC = kaldi.mfcc(
            torch.from_numpy(wave)[None],
            sample_frequency=RATE_HZ,
            num_ceps=13,
            use_energy=False,
            dither=0.0,
        )
        first_CF = functional.compute_deltas(cepstra_FC.T)
        theirs = torch.cat([cepstra_FC.T, first_CF, functional.compute_deltas(first_CF)]).T[::2]
        # torchaudio computes in fp32: 1.6e-4 in 50,000 samples, with values up to 76.
        np.testing.assert_allclose(mfcc(wave), theirs.numpy(), rtol=1e-4, atol=5e-4)


def stored(lengths: Sequence[int]) -> pa.Table:
    clips = [(voice(n, seed=i) * 32768).astype("<i2") for i, n in enumerate(lengths)]
    return pa.table(
        {
            "utterance_id": [f"u{i}" for i in range(len(lengths))],
            "num_samples": list(lengths),
            "pcm16": [clip.tobytes() for clip in clips],
        }
    )


def test_all_recordings_at_once_have_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch of a GPU on a CPU, also in several chunks; two copies there and two back for a part."""
    table = stored([4000, 400, 719, 720, 9000, 559, 560, 30_000])
    monkeypatch.setattr("gmp_atl_dist.inference.device_mfcc._CHUNK_FRAMES", 37)
    with late_lanes() as (lane, _):
        forward = Forward(DeviceMfcc(torch.device("cpu")), (MFCC_LAYER,), 600.0)
        found = forward(table)[MFCC_LAYER]
    assert (lane.sent, lane.fetched) == (2, 2)
    for u, pcm16 in zip(found, table["pcm16"].to_pylist(), strict=True):
        expected = mfcc(pcm16_to_float(np.frombuffer(pcm16, "<i2")))
        assert u.frames_TD.shape == expected.shape
        # Rounding to fp16 may differ where float32 does in its last bit.
        np.testing.assert_allclose(u.frames_TD, expected, rtol=1.1e-3, atol=1e-4)
        exact = expected.astype(np.float16) == u.frames_TD
        assert exact.mean() > 0.99


def test_a_part_is_stored_alike_by_both_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = stored([4000, 719, 12_000])
    parts: list[list[UtteranceFrames]] = []
    for on_gpu in (False, True):
        monkeypatch.setattr("gmp_atl_dist.inference.mfcc_extractor.has_gpu", lambda on=on_gpu: on)
        store, key = Store.open(str(tmp_path / str(on_gpu))), ArtifactKey("mfcc", "0" * 64)
        extractor = MfccExtractor(MfccArgument("none", store, key))
        receipts = json.loads(extractor.compute(Task("part-00000"), table)())
        assert [receipt["rows"] for receipt in receipts] == [3]
        artifact = ArtifactWriter(store, key).seal(version=1, science={}, inputs={})
        parts.append(list(read_features(artifact, "part-00000", MFCC_LAYER)))
    for ours, theirs in zip(*parts, strict=True):
        assert ours.utterance_id == theirs.utterance_id
        np.testing.assert_allclose(ours.frames_TD, theirs.frames_TD, rtol=1.1e-3, atol=1e-4)


def kernels(lengths: Sequence[int]) -> int:
    model, layout = DeviceMfcc(torch.device("cpu")), SlotLayout(tuple(lengths))
    samples_N = torch.zeros(layout.num_samples_N, dtype=torch.int16)
    with KernelCounter() as counter:
        model.frames(samples_N, layout, 10**6, HostLane())
    return counter.kernels


def test_more_recordings_take_no_more_kernels() -> None:
    assert kernels([4000] * 20) == kernels([80_000]) < 70


@given(st.integers(0, 20_000))
def test_frames_are_huberts(num_samples: int) -> None:
    found = mfcc(np.full(num_samples, 0.1, np.float32))
    assert found.shape == (num_frames(num_samples), MFCC_DIM)


def test_the_same_samples_give_the_same_values() -> None:
    wave = voice(30_000)
    assert mfcc(wave).tobytes() == mfcc(wave.copy()).tobytes()


def test_differences_of_a_line_are_its_slope() -> None:
    line = 3.0 * np.arange(20.0)[:, None]
    assert differences(line)[2:-2].ravel() == pytest.approx(3.0)
    assert differences(np.ones((1, 4))).tolist() == [[0.0] * 4]
