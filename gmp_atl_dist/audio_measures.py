"""Measures of a recording's quality, from its 16 kHz samples and the header of its file.

They inform and decide nothing: the audio audit compares them with the limits of ``[audit]``. ``ingest``
measures where it decodes anyway, and stores a table beside each part, so a report reads no audio.

Shapes: N samples, F frequency bins. Values are rounded, so that another machine gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, Header
from gmp_atl_dist.samples import FULL_SCALE

SECONDS = "seconds"
LEVEL = "level_dbfs"
CLIPPED = "clipped_share"
ZERO = "zero_share"
DC = "dc_share"
BANDWIDTH = "bandwidth_hz"
RATE = "rate_hz"
CHANNELS = "channels"
MEASURES = (SECONDS, LEVEL, CLIPPED, ZERO, DC, BANDWIDTH)
"""Of the 16 kHz samples: length, root mean square in dB of full scale, shares of samples at full scale and of
samples that are 0, the mean as a share of full scale, and the highest frequency with sound."""
SOURCE = (RATE, CHANNELS)
"""Of the file: its sampling rate and its number of channels."""

# Sums of so many squares of 16-bit integers are exact as float64, in any order. They fit into the cache of a
# core, and OpenBLAS uses one thread for so few.
_AT_ONCE = 1 << 13
_WINDOW = 512
# 2 s of windows, spread over the recording: enough to meet sounds of high frequency, and a bounded cost.
_WINDOWS = 64
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
# Sound this far below the loudest band is no sound; 16 bits hold a range of 98 dB.
_FLOOR_DB = 60.0
# Hum is louder than speech in some recordings.
_LOWEST_HZ = 200.0
# Rounding to 16 bits has a power of 1/12 per sample, and the window a sum of squares of 192. Dither and the
# noise of a converter are some dB above it.
_ROUNDING_POWER = 8 * 192 / 12


def level_dbfs(pcm16: npt.NDArray[np.int16]) -> float:
    """Root mean square of int16 samples (N,) in dB of full scale; minus infinity for zeros."""
    return _level_dbfs(len(pcm16), _sums(pcm16)[1])


def _sums(pcm16: npt.NDArray[np.int16]) -> tuple[int, int]:
    """The sum of samples (N,), and of their squares, both exact."""
    total, squares = 0, 0
    for first in range(0, len(pcm16), _AT_ONCE):
        samples = pcm16[first : first + _AT_ONCE].astype(np.float64)
        total += int(samples.sum())
        squares += int(np.dot(samples, samples))
    return total, squares


def _level_dbfs(count: int, squares: int) -> float:
    power = squares / max(1, count)
    return float(10 * np.log10(power / FULL_SCALE**2)) if power else -np.inf


def clipped_share(pcm16: npt.NDArray[np.int16]) -> float:
    """The share of samples (N,) at full scale."""
    limit = int(FULL_SCALE) - 1
    if not len(pcm16) or (pcm16.max() < limit and pcm16.min() > -limit):
        return 0.0
    return np.count_nonzero((pcm16 >= limit) | (pcm16 <= -limit)) / len(pcm16)


def zero_share(pcm16: npt.NDArray[np.int16]) -> float:
    """The share of samples (N,) that are exactly 0."""
    return 1 - np.count_nonzero(pcm16) / max(1, len(pcm16))


def bandwidth_hz(pcm16: npt.NDArray[np.int16]) -> float:
    """The highest frequency with sound in samples (N,): 60 dB below the loudest band, and above the noise of
    16 bits. Audio of 8 kHz gives about 4,000, whatever the rate of its file."""
    whole = max(1, len(pcm16) // _WINDOW)
    chosen = np.linspace(0, whole - 1, min(whole, _WINDOWS)).astype(int)
    if len(pcm16) < _WINDOW:
        pcm16 = np.pad(pcm16, (0, _WINDOW - len(pcm16)))
    frames = pcm16[: whole * _WINDOW].reshape(whole, _WINDOW)[chosen].astype(np.float32)
    spectra = np.fft.rfft(frames * _HANN, axis=1)
    # The real and the imaginary part of each bin, side by side.
    parts = spectra.view(np.float32)
    power_F = np.einsum("wf,wf->f", parts, parts).reshape(-1, 2).sum(axis=1, dtype=np.float64)
    hz = SAMPLE_RATE_HZ / _WINDOW
    loudest = power_F[round(_LOWEST_HZ / hz) :].max(initial=0.0)
    floor = max(loudest / 10 ** (_FLOOR_DB / 10), _ROUNDING_POWER * len(chosen))
    sounding = np.flatnonzero(power_F > floor)
    return float(hz * sounding[-1]) if len(sounding) else 0.0


def measures_of(pcm16: npt.NDArray[np.int16], header: Header) -> dict[str, float]:
    """All of :data:`MEASURES` and :data:`SOURCE` for samples (N,) that are not silent."""
    total, squares = _sums(pcm16)
    return {
        SECONDS: round(len(pcm16) / SAMPLE_RATE_HZ, 3),
        LEVEL: round(_level_dbfs(len(pcm16), squares), 2),
        CLIPPED: round(clipped_share(pcm16), 6),
        ZERO: round(zero_share(pcm16), 6),
        DC: round(abs(total) / max(1, len(pcm16)) / FULL_SCALE, 6),
        BANDWIDTH: round(bandwidth_hz(pcm16), 1),
        RATE: header.rate_hz,
        CHANNELS: header.channels,
    }


@dataclass(frozen=True)
class AudioTable:
    """Measures of U utterances.

    Attributes:
        ids: U ids.
        columns: (U,) float64 by name, those of :data:`MEASURES` and :data:`SOURCE`.
    """

    ids: tuple[str, ...]
    columns: dict[str, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, ids: Sequence[str], rows: Sequence[dict[str, float]]) -> AudioTable:
        """The table of rows of :func:`measures_of`."""
        columns = {name: np.array([row[name] for row in rows], float) for name in MEASURES + SOURCE}
        return cls(tuple(ids), columns)

    @classmethod
    def concatenated(cls, tables: Iterable[AudioTable]) -> AudioTable:
        """All rows of all tables, in order of ids."""
        found = list(tables)
        ids = [name for table in found for name in table.ids]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        columns = {
            name: np.concatenate([np.empty(0), *(table.columns[name] for table in found)])[order]
            for name in MEASURES + SOURCE
        }
        return cls(tuple(ids[i] for i in order), columns)

    def only(self, wanted: Container[str]) -> AudioTable:
        """The rows of these ids, in the order of the table."""
        rows = [i for i, name in enumerate(self.ids) if name in wanted]
        columns = {name: values[rows] for name, values in self.columns.items()}
        return AudioTable(tuple(self.ids[i] for i in rows), columns)

    def to_json(self) -> bytes:
        """The table as columns."""
        columns = {name: values.tolist() for name, values in self.columns.items()}
        return json.dumps({"utterance_id": self.ids} | columns).encode()

    @classmethod
    def from_json(cls, data: bytes, prefix: str = "") -> AudioTable:
        """The inverse of :meth:`to_json`; ids get ``prefix``."""
        columns = json.loads(data)
        ids = tuple(prefix + name for name in columns.pop("utterance_id"))
        return cls(ids, {name: np.array(values, float) for name, values in columns.items()})
