"""What a server accepts from a client, and how much it holds at once."""

from __future__ import annotations

from dataclasses import dataclass

from gmp_atl_dist.errors import ConfigError

MIB = 1 << 20
LONGEST_CLIP_S = 30.0
"""The longest clip of one forward pass. The memory of attention grows with the square of the length."""
MOST_CLIPS = 2000
"""Clips of one recording: a tiny hop would turn one request into hours of computing."""
_SOURCE_VALUES_PER_S = 2 * 48_000


@dataclass(frozen=True)
class Limits:
    """Limits of one server. All of them are checked before the work that they limit.

    Attributes:
        max_mib: largest upload, in MiB.
        max_s: longest recording, in seconds.
        decode_s: longest time to decode a recording, in seconds.
        answer_s: longest time from the first byte to the answer, in seconds.
        queue: most requests that are held at once; more are answered with 503.
    """

    max_mib: float = 25.0
    max_s: float = 300.0
    decode_s: float = 10.0
    answer_s: float = 120.0
    queue: int = 256

    def __post_init__(self) -> None:
        for name in ("max_mib", "max_s", "decode_s", "answer_s", "queue"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"limit {name} = {value:g}: give a number above 0")

    @property
    def max_bytes(self) -> int:
        return int(self.max_mib * MIB)

    @property
    def held_bytes(self) -> int:
        """Most bytes of uploads that are held at once."""
        return max(256 * MIB, 2 * self.max_bytes)

    @property
    def max_source_values(self) -> int:
        """Most samples times channels of a recording: stereo at 48 kHz, as long as is allowed.

        A compressed file of a few MiB can hold many channels at a high rate.
        """
        return int(self.max_s * _SOURCE_VALUES_PER_S)
