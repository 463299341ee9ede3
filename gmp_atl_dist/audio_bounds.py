"""How much sound one recording may hold, so that a small file cannot fill the memory or the day.

A compressed file of some kB can hold hours of many channels at a high rate. A header is read without
decoding, so what it says is compared with these bounds before any sample is decoded. They are far beyond
every speech corpus, and each of them is named in the message.
"""

from __future__ import annotations

from gmp_atl_dist.errors import CorpusError

MOST_RATE_HZ = 384_000
"""The highest rate of studio recorders."""
MOST_CHANNELS = 64
"""Those of the largest arrays of microphones that are sold."""
MOST_VALUES_PER_S = MOST_CHANNELS * 48_000
"""Samples of all channels in one second: 64 channels at 48 kHz, or 8 at 384 kHz."""
MOST_SECONDS = 12 * 3600
"""Of one recording or segment. Its 16 kHz samples take 1.4 GB."""


def refuse_beyond_bounds(rate_hz: int, channels: int) -> None:
    """Refuse a rate or a number of channels beyond a bound.

    Args:
        rate_hz: sampling rate of the file.
        channels: its channels.

    Raises:
        CorpusError: names the value, the bound, and what to do.
    """
    if rate_hz > MOST_RATE_HZ:
        raise CorpusError(
            f"the recording's sample rate is {rate_hz} Hz and at most {MOST_RATE_HZ} Hz are read; its "
            f"header is damaged, or write it again at 16000 Hz"
        )
    if channels > MOST_CHANNELS:
        raise CorpusError(
            f"the recording has {channels} channels and at most {MOST_CHANNELS} are read; write the "
            f"channel of the speaker as a file of its own"
        )
    if rate_hz * channels > MOST_VALUES_PER_S:
        raise CorpusError(
            f"the recording has {channels} channels at {rate_hz} Hz, which are {rate_hz * channels} "
            f"samples per second, and at most {MOST_VALUES_PER_S} are read; write it again at 16000 Hz, "
            f"or with fewer channels"
        )


def refuse_too_long(seconds: float) -> None:
    """Refuse a recording or a segment of more than :data:`MOST_SECONDS`.

    Raises:
        CorpusError: names the length, the bound, and what to do.
    """
    if seconds > MOST_SECONDS:
        raise CorpusError(
            f"lasts {seconds:.0f} s by its header and at most {MOST_SECONDS} s are decoded at once; cut it "
            f"into shorter recordings, or copy it again if it is not so long"
        )
