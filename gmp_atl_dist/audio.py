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
from typing import cast

import numpy as np
import numpy.typing as npt
import soundfile as sf

from gmp_atl_dist import containers
from gmp_atl_dist.audio_bounds import refuse_beyond_bounds, refuse_too_long
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.mono import Block, mono_pcm16
from gmp_atl_dist.mono import ChannelsCancelError as ChannelsCancelError
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel
from gmp_atl_dist.samples import FULL_SCALE

SAMPLE_RATE_HZ = 16000
FRAME_HOP_SAMPLES = 320
"""Samples from one frame to the next: 20 ms."""
MIN_SAMPLES = 400
"""Samples that one frame sees, 25 ms; anything shorter yields no frame."""

_MIN_SOURCE_RATE_HZ = 4000
# Times in tables are commonly rounded to hundredths; beyond that, the table means another file.
_END_TOLERANCE_S = 0.01
# Seeking in these is exact to the sample; in lossy formats it can change what is decoded.
_SEEKABLE_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "NIST"})
# Memory is allocated for samples that are there, not for what a header claims. A block of 256 KiB fits
# into the cache of a core.
_BLOCK_BYTES = 1 << 18
_MAX_TOTAL = 1 << 40
# Decoding reads bytes in memory alone. So any error of soundfile, soxr or numpy, a request for too much
# memory included, is a fault of these bytes.
_FAULTS_OF_DATA = (sf.SoundFileError, ArithmeticError, MemoryError, RuntimeError, ValueError)
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})
_PCM16_SUBTYPE = "PCM_16"


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


class RecordingBytes(io.BytesIO):
    """The bytes of a file for libsndfile.

    A broken header may make libsndfile seek to a negative position. The position then stays the same. An
    exception in this callback would only be printed, and libsndfile would not see it.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[_Forward, int]]:
    """The recording in these bytes, and its number of samples per channel.

    Raises:
        CorpusError: the bytes are no recording, are cut short, or cannot be decoded within the block.
    """
    whole = containers.checked(data)
    try:
        with _Forward(RecordingBytes(whole)) as recording:
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
        return _header(recording, frames)


def _header(recording: sf.SoundFile, frames: int) -> Header:
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
        CorpusError: the bytes cannot be decoded, are cut short, empty, silent, too short or long, beyond
            the bounds of ``audio_bounds``, not finite, or floats that are not scaled to 1, its channels
            cancel in their mean (:class:`ChannelsCancelError`), or the segment is not inside the
            recording. The message does not name the utterance; the caller adds it.
    """
    pcm16, _ = decode_with_header(
        data, start_s=start_s, end_s=end_s, min_s=min_s, max_s=max_s, channel=channel
    )
    return pcm16


def decode_with_header(
    data: bytes,
    *,
    start_s: float | None,
    end_s: float | None,
    min_s: float,
    max_s: float,
    channel: Channel,
) -> tuple[npt.NDArray[np.int16], Header]:
    """As :func:`decode_pcm16`, and what the header says, from one look at it."""

    def again() -> Iterator[Block]:
        with _opened(data) as (recording, _):
            yield from _blocks(recording, start, end)

    with _opened(data) as (recording, frames):
        rate_hz = recording.samplerate
        start, end = _segment(frames, rate_hz, start_s, end_s)
        refuse_beyond_bounds(rate_hz, recording.channels)
        _check_length((end - start) / rate_hz, min_s, max_s)
        refuse_too_long((end - start) / rate_hz)
        pcm16 = mono_pcm16(
            _blocks(recording, start, end),
            again,
            channels=recording.channels,
            channel=channel,
            floats=recording.subtype in _FLOAT_SUBTYPES,
            from_hz=rate_hz,
            to_hz=SAMPLE_RATE_HZ,
        )
        return pcm16, _header(recording, frames)


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


def _blocks(recording: sf.SoundFile, start: int, end: int) -> Iterator[Block]:
    """Samples ``start`` to ``end``: shape (samples, channels), in one buffer for all blocks.

    A coding of 16 bits gives int16, which libsndfile reads several times as fast as floats; any other gives
    float64 of full scale 1. 16-bit samples converted to float64 and back are the same bit for bit.
    """
    kind = np.dtype(np.int16 if recording.subtype == _PCM16_SUBTYPE else np.float64)
    room = max(1, _BLOCK_BYTES // kind.itemsize // recording.channels)
    buffer = np.empty((min(room, end), recording.channels), kind)
    position = 0
    # GSM 6.10 cannot seek at all, not even to where it is.
    if recording.format in _SEEKABLE_FORMATS and recording.subtype != "GSM610":
        position = recording.seek(start)
    while position < end:
        asked = min(end - position, room)
        held = len(recording.read(out=buffer[:asked]))
        position += held
        # Samples before the segment are left out: a recording can be hours long.
        if position > start:
            yield cast("Block", buffer[max(0, held - (position - start)) : held])
        if held < asked:
            raise CorpusError(
                f"the recording is cut short: {end - start} samples were expected and "
                f"{max(0, position - start)} are there; copy the file again"
            )
