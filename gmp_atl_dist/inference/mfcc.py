"""MFCC with their differences as Kaldi computes them, at HuBERT's frames; pretraining clusters them first.

HuBERT's first labels are clusters of 39 values: 13 MFCC, their differences and the differences of these
(arXiv 2106.07447, section IV-B). Options are those of fairseq's ``simple_kmeans``, hence Kaldi's defaults:
windows of 25 ms every 10 ms, 23 mel bands from 20 Hz, cepstrum 0 instead of the log energy, lifter 22.
There is no dither, so that the same samples give the same values. Every second frame is kept, and without
padding (Kaldi's ``snip_edges``) their number is HuBERT's ``(n - 400) // 320 + 1``.

Shape suffixes: N samples, F frames of 10 ms, T of 20 ms, W samples of a window, B FFT bins, M mel bands,
C cepstra, D values of a frame.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ, num_frames

NUM_CEPSTRA = 13
MFCC_DIM = 3 * NUM_CEPSTRA
HOP_SAMPLES = 160
KEPT_EVERY = FRAME_HOP_SAMPLES // HOP_SAMPLES

WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
_NUM_BANDS = 23
_LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
_POVEY_POWER = 0.85
_LIFTER = 22.0
LEAST_ENERGY = float(np.finfo(np.float32).eps)
DIFFERENCE_REACH_FRAMES = 2

_Floats = npt.NDArray[np.float64]


def mfcc(wave_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[T, D] of samples in [-1, 1) at 16 kHz: cepstra, differences, second differences.

    Samples of less than 25 ms give no frame.
    """
    if not num_frames(len(wave_N)):
        return np.zeros((0, MFCC_DIM), np.float32)
    cepstra_FC = _cepstra(wave_N.astype(np.float64))
    first_FC = differences(cepstra_FC)
    x_FD = np.concatenate([cepstra_FC, first_FC, differences(first_FC)], axis=1)
    return x_FD[::KEPT_EVERY].astype(np.float32)


def differences(x_FC: _Floats) -> _Floats:
    """The slope of each value over five frames by least squares; the first and last frame are repeated."""
    reach = DIFFERENCE_REACH_FRAMES
    padded_FC = np.pad(x_FC, ((reach, reach), (0, 0)), mode="edge")
    frames = len(x_FC)
    slope_FC = np.zeros_like(x_FC)
    for lag in range(1, reach + 1):
        after, before = padded_FC[reach + lag :], padded_FC[reach - lag :]
        slope_FC += lag * (after[:frames] - before[:frames])
    return slope_FC / (2 * sum(lag * lag for lag in range(1, reach + 1)))


def _cepstra(wave_N: _Floats) -> _Floats:
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_N, WINDOW_SAMPLES)[::HOP_SAMPLES]
    frames_FW = frames_FW - frames_FW.mean(axis=1, keepdims=True)
    # Within a frame: its first sample counts as the one before it.
    before_FW = np.concatenate([frames_FW[:, :1], frames_FW[:, :-1]], axis=1)
    frames_FW = (frames_FW - PREEMPHASIS * before_FW) * povey_window()
    power_FB = np.abs(np.fft.rfft(frames_FW, FFT_SAMPLES, axis=1)) ** 2
    energy_FM = power_FB @ mel_bands()
    return np.log(np.maximum(energy_FM, LEAST_ENERGY)) @ cosine_table()


@cache
def povey_window() -> _Floats:
    """[W]: Kaldi's own, a Hann window to the power of 0.85."""
    return np.hanning(WINDOW_SAMPLES) ** _POVEY_POWER


@cache
def mel_bands() -> _Floats:
    """[B, M]: triangles that are even in mel, half overlapping, from 20 Hz to half the sample rate."""
    low_mel, high_mel = _mel(np.array([_LOWEST_HZ, SAMPLE_RATE_HZ / 2])).tolist()
    edges_mel = np.linspace(low_mel, high_mel, _NUM_BANDS + 2)
    bins_hz = np.fft.rfftfreq(FFT_SAMPLES, 1 / SAMPLE_RATE_HZ).astype(np.float64)
    bins_B1 = _mel(bins_hz)[:, None]
    low_M, middle_M, high_M = edges_mel[:-2], edges_mel[1:-1], edges_mel[2:]
    rising_BM = (bins_B1 - low_M) / (middle_M - low_M)
    falling_BM = (high_M - bins_B1) / (high_M - middle_M)
    return np.maximum(0.0, np.minimum(rising_BM, falling_BM))


@cache
def cosine_table() -> _Floats:
    """[M, C]: the orthonormal DCT-II, with Kaldi's lifter on the cepstra."""
    cepstrum_C, band_M1 = np.arange(NUM_CEPSTRA), np.arange(_NUM_BANDS)[:, None]
    cosine_MC = np.cos(np.pi / _NUM_BANDS * (band_M1 + 0.5) * cepstrum_C)
    scale_C = np.where(cepstrum_C == 0, np.sqrt(1 / _NUM_BANDS), np.sqrt(2 / _NUM_BANDS))
    lifter_C = 1 + _LIFTER / 2 * np.sin(np.pi * cepstrum_C / _LIFTER)
    return cosine_MC * scale_C * lifter_C


def _mel(hz: _Floats) -> _Floats:
    return 1127.0 * np.log1p(hz / 700.0)
