"""Reads and decodes recordings in threads, ahead of the model and in order, within a limit of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ, decode_pcm16, read_header
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.prediction.decoding_room import DecodingRoom
from gmp_atl_dist.prediction.sources import Source
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel
from gmp_atl_dist.samples import is_silent
from gmp_atl_dist.store.filesystem import UnreadableError

READ_THREADS = 4
_AHEAD = 64
"""Most recordings that are decoded and not yet predicted."""
_AHEAD_BYTES = 64 << 20
"""Their samples together; a single recording may be larger."""


@dataclass(frozen=True, slots=True)
class ReadRecording:
    """A recording in memory, or the reason why it is not.

    Attributes:
        samples: [num_samples] at 16 kHz mono: int16, or float32 in [-1, 1); None if there is an error.
        source_rate_hz: sample rate of the file; None if it is not known.
    """

    name: str
    samples: np.ndarray | None
    source_rate_hz: int | None = None
    error: str = ""


def read_recording(
    source: Source,
    channel: Channel = DEFAULT_CHANNEL,
    room: Callable[[int], AbstractContextManager[None]] = lambda num_bytes: nullcontext(),
) -> ReadRecording:
    """Read and decode one recording. Whatever is wrong with the recording itself is in ``error``.

    Args:
        room: decoding begins within it; it is told how many bytes the samples will take.

    Raises:
        ArtifactError: the object store does not answer.
    """
    try:
        data = source.read()
        header = read_header(data)
        with room(int(header.frames / header.rate_hz * SAMPLE_RATE_HZ * 2)):
            pcm16 = decode_pcm16(data, channel=channel)
        refuse_too_short(len(pcm16))
    except (CorpusError, UnreadableError) as e:
        return ReadRecording(source.name, None, error=e.message)
    return ReadRecording(source.name, pcm16, header.rate_hz)


def read_wave(name: str, wave: np.ndarray) -> ReadRecording:
    """A recording that is in memory already: float [num_samples] at 16 kHz, mono."""
    try:
        if wave.ndim != 1:
            raise CorpusError(f"has shape {wave.shape}, expected [num_samples], mono")
        if not np.isfinite(wave).all():
            raise CorpusError("has samples that are not finite")
        refuse_too_short(len(wave))
        if is_silent(wave):
            raise CorpusError("holds only digital silence (all samples are equal)")
    except CorpusError as e:
        return ReadRecording(name, None, error=e.message)
    return ReadRecording(name, np.ascontiguousarray(wave, np.float32))


def refuse_too_short(num_samples: int) -> None:
    """Raises CorpusError where there is not one frame."""
    if num_samples < MIN_SAMPLES:
        raise CorpusError(
            f"is too short, {num_samples} samples at {SAMPLE_RATE_HZ // 1000} kHz; the model needs "
            f"{MIN_SAMPLES}"
        )


def read_ahead(
    sources: Iterable[Source | ReadRecording], channel: Channel = DEFAULT_CHANNEL
) -> Generator[ReadRecording]:
    """Every recording, in order. Later ones are decoded meanwhile, as far as memory is left for them.

    What was read already is passed on.

    Raises:
        ArtifactError: the object store does not answer.
    """
    pending: deque[Future[ReadRecording]] = deque()
    waiting = iter(sources)
    room, order = DecodingRoom(_AHEAD_BYTES), 0
    pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
    try:
        while True:
            while _has_room(pending) and (source := next(waiting, None)) is not None:
                pending.append(pool.submit(_read, source, channel, room, order))
                order += 1
            if not pending:
                return
            yield pending.popleft().result()
            room.taken()
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)


def _read(
    source: Source | ReadRecording, channel: Channel, room: DecodingRoom, order: int
) -> ReadRecording:
    if isinstance(source, ReadRecording):
        return source
    return read_recording(source, channel, lambda num_bytes: room.for_one(order, num_bytes))


def _has_room(pending: deque[Future[ReadRecording]]) -> bool:
    """What is not decoded yet has an unknown size, so there are few of those."""
    if len(pending) >= _AHEAD:
        return False
    held, unknown = 0, 0
    for future in pending:
        if not future.done():
            unknown += 1
        elif future.exception() is None and (samples := future.result().samples) is not None:
            held += samples.nbytes
    return held < _AHEAD_BYTES and unknown < 2 * READ_THREADS
