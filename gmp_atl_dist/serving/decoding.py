"""From the bytes of an upload to samples, in threads, within limits of length, memory and time."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile as sf

from gmp_atl_dist import containers
from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ, RecordingBytes, decode_pcm16
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.refusals import Refusal

_THREADS = 2


@dataclass(frozen=True)
class Decoded:
    """Samples of a recording, int16 (N,), 16 kHz mono, and the sample rate of the file."""

    pcm16: npt.NDArray[np.int16]
    source_rate_hz: int


class Decoder:
    """Decodes at most two recordings at once. The samples are those of ``gmp-atl predict``."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        self._free = asyncio.Semaphore(_THREADS)

    async def __call__(self, data: bytes, channel: Channel = DEFAULT_CHANNEL) -> Decoded:
        """The recording in these bytes.

        Raises:
            Refusal: 413 too long, 415 no audio, 422 audio that cannot be used.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        work = self._pool.submit(decode_upload, data, self._limits, channel)

        # A thread cannot be ended. It keeps its place until it is done, so there are never more of them.
        def done(_: Future[Decoded]) -> None:
            loop.call_soon_threadsafe(self._free.release)

        work.add_done_callback(done)
        try:
            async with asyncio.timeout(self._limits.decode_s):
                return await asyncio.wrap_future(work)
        except TimeoutError:
            raise Refusal(
                422,
                "decoding_too_slow",
                f"the recording takes longer than {self._limits.decode_s:g} s to decode; send it as "
                f"16 kHz mono WAV or FLAC",
            ) from None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def decode_upload(data: bytes, limits: Limits, channel: Channel = DEFAULT_CHANNEL) -> Decoded:
    """See :class:`Decoder`. The header is checked before any sample is decoded."""
    try:
        whole = containers.checked(data)
    except CorpusError as e:
        raise Refusal(422, "unusable_recording", e.message) from e
    try:
        with sf.SoundFile(RecordingBytes(whole)) as recording:
            rate_hz, channels, frames = recording.samplerate, recording.channels, recording.frames
    except (sf.SoundFileError, RuntimeError, ValueError, TypeError, MemoryError) as e:
        raise Refusal(
            415,
            "not_audio",
            f"these {len(data)} bytes are no recording that libsndfile reads; send wav, flac, ogg, mp3 or "
            f"opus",
        ) from e
    length_s = frames / rate_hz
    if length_s > limits.max_s:
        raise Refusal(
            413,
            "too_long",
            f"the recording lasts {length_s:.0f} s and {limits.max_s:g} s are allowed; cut it",
        )
    if frames * channels > limits.max_source_values:
        raise Refusal(
            413,
            "too_many_samples",
            f"the recording has {channels} channels at {rate_hz} Hz, which is too much for its length; "
            f"send it as 16 kHz mono",
        )
    try:
        pcm16 = decode_pcm16(data, channel=channel)
    except CorpusError as e:
        raise Refusal(422, "unusable_recording", e.message) from e
    if len(pcm16) < MIN_SAMPLES:
        raise Refusal(
            422,
            "too_short",
            f"the recording has {len(pcm16)} samples at 16 kHz; at least {MIN_SAMPLES} are needed "
            f"({1000 * MIN_SAMPLES // SAMPLE_RATE_HZ} ms)",
        )
    return Decoded(pcm16, rate_hz)
