"""Blocks of a recording become 16-bit mono samples of one rate, without holding the recording as floats.

The resampler keeps its state between blocks, so the samples are the same whatever the size of the blocks. Of
a recording of hours, memory holds its bytes and the 16-bit samples. Small blocks are also faster than large
ones, because they stay in the cache of the processor.

Shapes: N samples of a block, C channels. Floats have full scale 1, 16-bit samples 32,768.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import soxr
from cachetools import LRUCache

from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Channel
from gmp_atl_dist.samples import (
    Extent,
    is_silent,
    refuse_unscaled,
    to_floats,
    to_pcm16,
    why_silent,
)

# Mixing channels that have nothing in common costs 3 dB, a silent second channel 6 dB.
_CANCELLED = 1e-3

# Samples that are resampled together: their floats stay in the cache of a core.
_AT_ONCE = 1 << 14
_RESAMPLERS = 4

Block = npt.NDArray[np.float64] | npt.NDArray[np.int16]
"""Shape (N, C)."""
Samples = npt.NDArray[np.float64] | npt.NDArray[np.int16]
"""Of one channel, shape (N,)."""


class ChannelsCancelError(CorpusError):
    """The channels of a recording cancel in their mean. Who can choose another channel adds how."""


def mono_pcm16(
    blocks: Iterable[Block],
    again: Callable[[], Iterable[Block]],
    *,
    channels: int,
    channel: Channel,
    floats: bool,
    from_hz: int,
    to_hz: int,
) -> npt.NDArray[np.int16]:
    """The samples of all blocks, shape (samples,).

    Args:
        blocks: the recording from front to back. A block may be overwritten when the next one is asked for.
        again: begins a second pass, for ``loudest`` and to explain silence.
        channels: C.
        channel: what becomes mono of several channels.
        floats: whether the file holds floats, which may have another full scale.
        from_hz: rate of the blocks.
        to_hz: rate of the result. Of equal rates, 16-bit samples are kept bit for bit.

    Raises:
        CorpusError: samples are not finite, not scaled to 1, silent, or too few to be resampled.
        ChannelsCancelError: the channels cancel in their mean.
    """
    one = 0 if channels == 1 or channel == "first" else None
    if one is None and channel == "loudest":
        one = _loudest(again(), channels)
    resampler = None if from_hz == to_hz else _resampler(from_hz, to_hz)
    scale, mixed, source = _Scale(), _Mixed(channels), Extent()
    pieces: list[npt.NDArray[np.int16]] = []
    for block in blocks:
        # Integers are finite, and scaled as their type says.
        if block.dtype != np.int16:
            scale.add(block, floats)
        if one is None:
            wave = to_floats(block)
            mono = wave.mean(axis=1)
            mixed.add(wave, mono)
        else:
            mono = block[:, one]
        source = source.joined(mono)
        pieces += [_pcm16_copy(mono)] if resampler is None else _resampled(resampler, mono)
    if floats:
        refuse_unscaled(scale.peak, scale.fractions)
    if one is None:
        mixed.refuse_cancelled()
    if resampler is not None:
        pieces.append(to_pcm16(resampler.resample_chunk(np.empty(0), last=True)))
    pcm16 = np.concatenate(pieces)
    # Memory holds the samples twice up to here, and need not from here on.
    pieces.clear()
    if not len(pcm16):
        raise CorpusError(
            f"{source.count} samples at {from_hz} Hz are too short to be resampled; leave it out"
        )
    # Resampling turns a constant into a step at each end, so the source is looked at as well.
    if source.is_silent or is_silent(pcm16):
        raise CorpusError(why_silent(_extents(again(), channels), source))
    return pcm16


class _Resamplers(threading.local):
    """Those of this thread by their rates: to design the filter takes a tenth of the time of a short clip."""

    def __init__(self) -> None:
        self.by_rates: LRUCache[tuple[int, int], soxr.ResampleStream] = LRUCache(_RESAMPLERS)


_resamplers = _Resamplers()


def _resampler(from_hz: int, to_hz: int) -> soxr.ResampleStream:
    """A resampler that holds nothing of an earlier recording."""
    key = (from_hz, to_hz)
    found = _resamplers.by_rates.get(key)
    if found is None:
        found = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float64", quality="VHQ")
        _resamplers.by_rates[key] = found
    else:
        # The recording before it may have ended in an error.
        found.clear()
    return found


def _resampled(resampler: soxr.ResampleStream, mono: Samples) -> list[npt.NDArray[np.int16]]:
    return [
        to_pcm16(resampler.resample_chunk(to_floats(mono[first : first + _AT_ONCE])))
        for first in range(0, len(mono), _AT_ONCE)
    ]


def _pcm16_copy(mono: Samples) -> npt.NDArray[np.int16]:
    return mono.astype(np.int16) if mono.dtype == np.int16 else to_pcm16(to_floats(mono))


@dataclass
class _Scale:
    """The peak of all channels, and whether any sample is no integer."""

    peak: float = 0.0
    fractions: bool = False

    def add(self, block: Block, floats: bool) -> None:
        low, high = float(block.min()), float(block.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CorpusError(
                "the recording has samples that are not finite; write it again from source"
            )
        if floats:
            self.peak = max(self.peak, -low, high)
            self.fractions = self.fractions or bool((block != np.rint(block)).any())


@dataclass
class _Mixed:
    """Sums of squares of C channels and of their mean."""

    channels: int
    squares_C: npt.NDArray[np.float64] = field(init=False)
    squares_of_mean: float = 0.0

    def __post_init__(self) -> None:
        self.squares_C = np.zeros(self.channels)

    def add(self, wave: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> None:
        self.squares_C += _squares(wave)
        self.squares_of_mean += float(np.dot(mean, mean))

    def refuse_cancelled(self) -> None:
        mean, loudest = self.squares_of_mean, float(self.squares_C.max())
        if mean < loudest * _CANCELLED:
            below = f"{10 * math.log10(loudest / mean):.0f} dB below" if mean else "silent beside"
            raise ChannelsCancelError(
                f"its {self.channels} channels cancel when mixed to mono: the mean is {below} the "
                f"louder channel; give one channel of it"
            )


def _squares(wave: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum of squares of each channel, shape (C,)."""
    return np.einsum("nc,nc->c", wave, wave)


def _loudest(blocks: Iterable[Block], channels: int) -> int:
    """The channel with the most energy; the first of several."""
    squares_C = np.zeros(channels)
    for block in blocks:
        squares_C += _squares(to_floats(block))
    return int(squares_C.argmax())


def _extents(blocks: Iterable[Block], channels: int) -> list[Extent]:
    extents = [Extent()] * channels
    for block in blocks:
        extents = [extent.joined(block[:, c]) for c, extent in enumerate(extents)]
    return extents
