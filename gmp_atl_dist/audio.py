"""From the bytes of a recording to 16 kHz mono 16-bit samples, and HuBERT's frame arithmetic.

Samples are stored as int16: that is what corpora hold, it halves storage against float32, and its
digest is an identity that does not depend on the file's container.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr

from gmp_atl_dist import containers
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel
from gmp_atl_dist.samples import FULL_SCALE, is_silent, refuse_unscaled, to_pcm16, why_silent

SAMPLE_RATE_HZ = 16000
FRAME_HOP_SAMPLES = 320
"""Samples from one frame to the next: 20 ms."""
MIN_SAMPLES = 400
"""Samples that one frame sees, 25 ms; anything shorter yields no frame."""

_MIN_SOURCE_RATE_HZ = 4000
# Mixing channels that have nothing in common costs 3 dB, a silent second channel 6 dB.
_CANCELLED = 1e-3
# Times in tables are commonly rounded to hundredths; beyond that, the table means another file.
_END_TOLERANCE_S = 0.01
# Seeking in these is exact to the sample; in lossy formats it can change what is decoded.
_SEEKABLE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "NIST"})
# Memory is allocated for samples that are there, at most 128 MiB at a time, not for what a header claims.
_BLOCK_VALUES = 1 << 24
_MAX_TOTAL = 1 << 40
# Decoding reads bytes in memory alone. So any error of soundfile, soxr or numpy, a request for too much
# memory included, is a fault of these bytes.
_FAULTS_OF_DATA = (sf.SoundFileError, ArithmeticError, MemoryError, RuntimeError, ValueError)
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})


class ChannelsCancelError(CorpusError):
    """The channels of a recording cancel in their mean. Who can choose another channel adds how."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a recording's header says: its rate, channels, samples of each, and libsndfile's coding name."""

    rate_hz: int
    channels: int
    frames: int
    coding: str


class _Forward(sf.SoundFile):
    """Reads from front to back alone.

    ``SoundFile.read`` seeks to its own position after each block, and then reads wrong samples of an MP3.
    It does not seek in a file that is not seekable.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[_Forward, int]]:
    """The recording in these bytes, and its number of samples per channel.

    Raises:
        CorpusError: the bytes are no recording, are cut short, or cannot be decoded within the block.
    """
    whole = containers.checked(data)
    try:
        with _Forward(io.BytesIO(whole)) as recording:
            frames = containers.gsm_frames(whole) if recording.subtype == "GSM610" else None
            yield recording, recording.frames if frames is None else frames
    except _FAULTS_OF_DATA as e:
        reason = str(e).split(">: ")[-1].removeprefix("Error : ").rstrip(".") or type(e).__name__
        raise CorpusError(
            f"the recording cannot be decoded ({reason}; {len(data)} bytes); replace the file by a "
            f"whole wav, flac, ogg or mp3"
        ) from e


def read_header(data: bytes) -> Header:
    """What the header of a recording says, without decoding it.

    Raises:
        CorpusError: the bytes are no recording, or are cut short.
    """
    with _opened(data) as (recording, frames):
        return Header(
            recording.samplerate,
            recording.channels,
            frames,
            f"{recording.format} {recording.subtype}",
        )


def num_frames(num_samples: int) -> int:
    """Frames HuBERT yields for ``num_samples`` at 16 kHz; none below ``MIN_SAMPLES``."""
    if num_samples < MIN_SAMPLES:
        return 0
    return (num_samples - MIN_SAMPLES) // FRAME_HOP_SAMPLES + 1


def decode_pcm16(
    data: bytes,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    min_s: float = 0.0,
    max_s: float = math.inf,
    channel: Channel = DEFAULT_CHANNEL,
) -> npt.NDArray[np.int16]:
    """Decode a recording to 16 kHz mono: shape (samples,), int16.

    Any format of libsndfile (wav, flac, ogg, mp3, ...) at any rate with any number of channels.
    Samples that already are 16 kHz mono 16-bit are kept bit for bit. A segment is cut out before
    resampling, at the nearest samples of the source.

    Args:
        data: the whole file.
        start_s: beginning of the segment in seconds; None is the recording's beginning.
        end_s: end of the segment in seconds; None is the recording's end.
        min_s: a shorter recording or segment is refused.
        max_s: a longer one is refused, before memory is allocated for it.
        channel: what becomes mono of several channels: their mean, the first, or the one with the most
            energy in the segment.

    Raises:
        CorpusError: the bytes cannot be decoded, are cut short, empty, silent, too short or long, not
            finite, or floats that are not scaled to 1, its channels cancel in their mean
            (:class:`ChannelsCancelError`), or the segment is not inside the recording. The message does
            not name the utterance; the caller adds it.
    """
    with _opened(data) as (recording, frames):
        start, end = _segment(frames, recording.samplerate, start_s, end_s)
        _check_length((end - start) / recording.samplerate, min_s, max_s)
        return _decode(recording, start, end, channel)


def pcm16_to_float(pcm16: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """The same samples, same shape, as float32 in [-1, 1)."""
    return pcm16.astype(np.float32) / np.float32(FULL_SCALE)


def frame_levels_db(pcm16: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """The level of each of HuBERT's frames in dB relative to the loudest one; shape (frames,).

    It is the power of the frame's 400 samples. Frames of digital silence are at minus infinity, also if
    the whole utterance is silent.
    """
    frames = num_frames(len(pcm16))
    squares = pcm16.astype(np.float64) ** 2
    ends = np.concatenate([[0.0], np.cumsum(squares)])
    first = FRAME_HOP_SAMPLES * np.arange(frames)
    power = ends[first + MIN_SAMPLES] - ends[first]
    loudest = power.max(initial=0.0) or 1.0
    with np.errstate(divide="ignore"):
        return (10 * np.log10(power / loudest)).astype(np.float32)


def _decode(
    recording: sf.SoundFile, start: int, end: int, channel: Channel
) -> npt.NDArray[np.int16]:
    rate_hz = recording.samplerate
    # 16-bit samples converted to float64 and back are the same bit for bit.
    samples = _read(recording, start, end)
    if not np.isfinite(samples).all():
        raise CorpusError(
            "the recording has samples that are not finite; write it again from source"
        )
    if recording.subtype in _FLOAT_SUBTYPES:
        refuse_unscaled(samples)
    chosen = mono = samples[:, 0] if samples.shape[1] == 1 else _mono(samples, channel)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="VHQ")
    if not len(mono):
        raise CorpusError(
            f"{end - start} samples at {rate_hz} Hz are too short to be resampled; leave it out"
        )
    pcm16 = to_pcm16(mono)
    # Resampling turns a constant into a step at each end, so the source is looked at as well.
    if is_silent(pcm16) or (mono is not chosen and is_silent(to_pcm16(chosen))):
        raise CorpusError(why_silent(samples, chosen))
    return pcm16


def _mono(samples: npt.NDArray[np.float64], channel: Channel) -> npt.NDArray[np.float64]:
    """Shape (samples, channels) to (samples,)."""
    if channel == "first":
        return samples[:, 0]
    power_C = np.mean(samples**2, axis=0)
    if channel == "loudest":
        return samples[:, int(power_C.argmax())]
    mean = samples.mean(axis=1)
    power = float(np.mean(mean**2))
    loudest = float(power_C.max())
    if power < loudest * _CANCELLED:
        below = f"{10 * math.log10(loudest / power):.0f} dB below" if power else "silent beside"
        raise ChannelsCancelError(
            f"its {len(power_C)} channels cancel when mixed to mono: the mean is {below} the louder "
            f"channel; give one channel of it"
        )
    return mean


def _segment(
    total: int, rate_hz: int, start_s: float | None, end_s: float | None
) -> tuple[int, int]:
    """The first sample, and the one after the last, of a recording with ``total`` samples."""
    if rate_hz < _MIN_SOURCE_RATE_HZ:
        raise CorpusError(
            f"the recording's sample rate is {rate_hz} Hz, too low for speech; its header is "
            f"damaged, or record at {SAMPLE_RATE_HZ} Hz"
        )
    if total == 0:
        raise CorpusError("the recording holds no sample; replace the file or leave it out")
    if total > _MAX_TOTAL:
        raise CorpusError(
            "the recording's header does not say how long it is; write it to a file, not a pipe"
        )
    start_s = 0.0 if start_s is None else start_s
    length_s = total / rate_hz
    # Written so that NaN fails each comparison.
    inside = 0 <= start_s < length_s and (
        end_s is None or start_s < end_s <= length_s + _END_TOLERANCE_S
    )
    start = round(start_s * rate_hz) if inside else 0
    end = total if end_s is None or not inside else min(round(end_s * rate_hz), total)
    if not inside or start >= end:
        shown_end = "its end" if end_s is None else f"{end_s:g} s"
        raise CorpusError(
            f"the segment from {start_s:g} s to {shown_end} is not inside the recording, which "
            f"lasts {length_s:.3f} s; correct start_s and end_s"
        )
    return start, end


def _check_length(length_s: float, min_s: float, max_s: float) -> None:
    for key, limit_s, fine in (
        ("min_s", min_s, length_s >= min_s),
        ("max_s", max_s, length_s <= max_s),
    ):
        if not fine:
            raise CorpusError(
                f"lasts {length_s:.3f} s, corpus.{key} is {limit_s:g}; change that or leave it out"
            )


def _read(recording: sf.SoundFile, start: int, end: int) -> npt.NDArray[np.float64]:
    """Samples ``start`` to ``end``: shape (samples, channels), full scale 1."""
    wanted = end - start
    room = max(1, _BLOCK_VALUES // recording.channels)
    position = 0
    # GSM 6.10 cannot seek at all, not even to where it is.
    if recording.format in _SEEKABLE_FORMATS and recording.subtype != "GSM610":
        position = recording.seek(start)
    blocks = [np.empty((0, recording.channels))]
    while position < end:
        asked = min(end - position, room)
        block = recording.read(asked, dtype="float64", always_2d=True)
        position += len(block)
        # Samples before the segment are not kept: a recording can be hours long.
        if position > start:
            blocks.append(np.asarray(block, dtype=np.float64)[-(position - start) :])
        if len(block) < asked:
            break
    samples = np.concatenate(blocks)
    if len(samples) != wanted:
        raise CorpusError(
            f"the recording is cut short: {wanted} samples were expected and {len(samples)} are "
            f"there; copy the file again"
        )
    return samples
