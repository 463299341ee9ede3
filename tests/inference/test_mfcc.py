"""MFCC against Kaldi's definition written out a frame and a band at a time, and against torchaudio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.inference.mfcc import MFCC_DIM, differences, mfcc
from gmp_atl_dist.inference.mfcc_extractor import chosen_mfcc, load_torchaudio, torchaudio_mfcc

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
    torchaudio = load_torchaudio()
    if torchaudio is None:
        assert chosen_mfcc() is mfcc
        pytest.skip("torchaudio is not installed")
    for num_samples in (399, 400, 719, 720, 50_000):
        wave = voice(num_samples)
        theirs = torchaudio_mfcc(torchaudio, wave)
        # torchaudio computes in fp32: 1.6e-4 in 50,000 samples, with values up to 76.
        np.testing.assert_allclose(mfcc(wave), theirs, rtol=1e-4, atol=5e-4)


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
