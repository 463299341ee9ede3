"""A small spectrogram for the page: one column per HuBERT frame, one byte per value.

Band energies are summed by ``np.add.reduceat``, not by a matrix product, so that the bytes do not depend
on the number of BLAS threads.
"""

from __future__ import annotations

import base64
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from gmp_atl_dist.report.protocol import Content

BANDS = 40
FRAMES_PER_S = 50
_RATE_HZ = 16_000
_HOP = _RATE_HZ // FRAMES_PER_S
_WINDOW = 512
_RANGE_DB = 65.0
"""Levels more than this below the loudest value are drawn as silence."""


class Spectrogram(Content):
    """Mel-spaced bands over time. ``levels`` is base64 of ``bands`` x ``frames`` bytes, C order, the lowest
    band first; 0 is silence and 255 the loudest value."""

    bands: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=1)]
    levels: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(base64.b64decode(self.levels, validate=True)) != self.bands * self.frames:
            raise ValueError(f"levels are not {self.bands} x {self.frames} bytes")
        return self

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """uint8 [bands, frames]."""
        flat = np.frombuffer(base64.b64decode(self.levels), dtype=np.uint8)
        return flat.reshape(self.bands, self.frames)

    @classmethod
    def of(cls, pcm16: npt.NDArray[np.int16], max_frames: int, bands: int = BANDS) -> Spectrogram:
        """The spectrogram of the first ``max_frames`` frames of 16 kHz samples [num_samples]."""
        frames = max(1, min(max_frames, 1 + (len(pcm16) - 1) // _HOP))
        wave = np.zeros((frames - 1) * _HOP + _WINDOW)
        cut = pcm16[: len(wave)]
        wave[: len(cut)] = cut / 32768.0
        pieces = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_HOP][:frames]
        power = np.abs(np.fft.rfft(pieces * np.hanning(_WINDOW), axis=1)) ** 2
        energy = np.add.reduceat(power, _band_starts(bands), axis=1)
        level_db = 10 * np.log10(energy + 1e-10)
        loudest = level_db.max()
        scaled = 255 * (level_db - (loudest - _RANGE_DB)) / _RANGE_DB
        if loudest <= 10 * np.log10(2e-10):
            scaled = np.zeros_like(scaled)
        levels = np.clip(np.round(scaled), 0, 255).astype(np.uint8).T
        return cls(
            bands=bands,
            frames=frames,
            levels=base64.b64encode(np.ascontiguousarray(levels).tobytes()).decode("ascii"),
        )


def _band_starts(bands: int) -> list[int]:
    """The first FFT bin of each band: equal steps on the mel scale, at least one bin each."""
    top = 2595 * np.log10(1 + _RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 1)[:-1] / 2595) - 1)
    starts = np.round(edges / (_RATE_HZ / _WINDOW)).astype(int).tolist()
    for i in range(1, bands):
        starts[i] = max(starts[i], starts[i - 1] + 1)
    return starts
