"""What samples hold, whatever file they come from: silence, and floats that are not scaled.

Shapes: N samples, C channels. Floats have full scale 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.errors import CorpusError

FULL_SCALE = 32768.0
"""Of 16-bit samples."""
_MOST_OVERSHOOT = 8.0
"""A float recording with a higher peak is not scaled. Speech that was recorded too loudly as floats goes to
some 12 dB over full scale, a factor of 4."""


def to_pcm16(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Floats as 16 bits, same shape; what is beyond full scale is clipped."""
    # One array of floats and not three: memory costs more time than arithmetic here.
    scaled = samples * FULL_SCALE
    np.rint(scaled, out=scaled)
    # np.clip does the same and costs more than the work itself on a short block.
    np.maximum(scaled, -FULL_SCALE, out=scaled)
    np.minimum(scaled, FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


def to_floats(
    samples: npt.NDArray[np.int16] | npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Samples as float64 of full scale 1, same shape. Floats are that already, and are not copied."""
    if samples.dtype != np.int16:
        return np.ascontiguousarray(samples, np.float64)
    return np.multiply(samples, 1 / FULL_SCALE, dtype=np.float64)


def is_silent(samples: npt.NDArray[np.int16 | np.floating]) -> bool:
    """Whether samples (N,) hold no signal: as 16 bits, all of them are equal. The only rule of silence.

    They are 0, or a constant: A-law has no 0, and a recorder may add one. Noise of one bit is a signal; the
    audio audit names it as quiet.
    """
    is_float = np.issubdtype(samples.dtype, np.floating)
    pcm16 = to_pcm16(samples.astype(np.float64)) if is_float else samples
    if not len(pcm16):
        return True
    low, high = pcm16.min(), pcm16.max()
    # One sample alone is no constant.
    return bool(low == high and (low == 0 or len(pcm16) > 1))


@dataclass(frozen=True, slots=True)
class Extent:
    """How many samples one channel has, the first of them, the lowest and the highest."""

    count: int = 0
    first: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def joined(self, samples: npt.NDArray[np.float64] | npt.NDArray[np.int16]) -> Extent:
        """With more samples (N,), at least one, at the end."""
        unit = 1 / FULL_SCALE if samples.dtype == np.int16 else 1.0
        return Extent(
            self.count + len(samples),
            self.first if self.count else float(samples[0]) * unit,
            min(self.low, float(samples.min()) * unit),
            max(self.high, float(samples.max()) * unit),
        )

    @property
    def is_silent(self) -> bool:
        """What :func:`is_silent` says of the samples: rounding keeps their order."""
        if not self.count:
            return True
        low, high = to_pcm16(np.array([self.low, self.high]))
        return bool(low == high and (low == 0 or self.count > 1))


def why_silent(channels: Sequence[Extent], mono: Extent) -> str:
    """What is wrong with C channels, of which ``mono`` is used and holds no signal."""
    if not all(channel.is_silent for channel in channels):
        return (
            "the channel that is used holds only digital silence, and another one does not; set "
            "corpus.channel = 'loudest', or give that channel alone"
        )
    loudest = max(mono.high - mono.first, mono.first - mono.low)
    if loudest:
        return (
            f"the recording holds only digital silence at 16 bits: its samples differ by "
            f"{20 * math.log10(loudest):.0f} dB of full scale; if they are 16-bit values in a wider "
            f"format, write them again as 16 bits; else leave it out"
        )
    return (
        "the recording holds only digital silence (all samples are equal); replace the file or leave it "
        "out"
    )


def refuse_unscaled(peak: float, fractions: bool) -> None:
    """Integers that were saved as floats would be clipped to a square wave.

    Args:
        peak: the largest absolute value.
        fractions: whether any sample is no integer.

    Raises:
        CorpusError: the samples go far beyond full scale, or beyond it and all of them are integers.
    """
    if peak <= 1.0 or (peak <= _MOST_OVERSHOOT and fractions):
        return
    raise CorpusError(
        f"the float samples of the recording go up to {peak:g} and full scale is 1, so it would be "
        f"clipped to a square wave; if they are 16-bit values, write them as int16, or divide them by "
        f"32768"
    )
