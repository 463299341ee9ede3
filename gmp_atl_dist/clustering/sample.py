"""Which utterances k-means hears of a corpus that is larger than it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gmp_atl_dist.seeding import keyed_seed

_WHOLE = 1 << 63


@dataclass(frozen=True)
class UtteranceSample:
    """An even random share of the utterances, each by its own name.

    Whether an utterance is in it depends on the seed and its id alone, so the sample is the same
    however the corpus is cut into parts, and a worker needs no list of it.
    """

    share: float
    seed: int

    @classmethod
    def of(cls, total_frames: int, sample_frames: int, spread: float, seed: int) -> UtteranceSample:
        """Enough utterances for about ``spread`` times ``sample_frames``; all where they are fewer."""
        return cls(min(1.0, spread * sample_frames / max(total_frames, 1)), seed)

    @property
    def is_all(self) -> bool:
        return self.share >= 1.0

    def holds(self, utterance_id: str) -> bool:
        return self.is_all or keyed_seed("sample", self.seed, utterance_id) < self.share * _WHOLE

    def mask(self, utterance_ids: Iterable[str]) -> list[bool]:
        """Of each id, whether it is in the sample."""
        return [self.holds(utterance_id) for utterance_id in utterance_ids]
