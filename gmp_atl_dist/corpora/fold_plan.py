"""What the sides of each fold would hold, from labels alone.

``corpora check`` and ``doctor`` show it, so that a plan that cannot work is seen before audio is decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gmp_atl_dist.records import Fold, Utterance

_SECONDS_AN_HOUR = 3600.0
UNKNOWN = "-"
"""Stands for hours that are not known."""


@dataclass(frozen=True, slots=True)
class SideCount:
    """One side of a fold.

    Attributes:
        name: training, validation or test.
        speakers: number of its speakers.
        utterances: number of their utterances.
        seconds: of audio; None if the duration of one of them is not known.
        absent: classes that none of them has, in the order of the class list.
    """

    name: str
    speakers: int
    utterances: int
    seconds: float | None
    absent: tuple[str, ...]

    def __str__(self) -> str:
        hours = UNKNOWN if self.seconds is None else f"{self.seconds / _SECONDS_AN_HOUR:.2f}"
        return f"{self.utterances} utterances, {self.speakers} speakers, {hours} h"


@dataclass(frozen=True, slots=True)
class FoldCount:
    """A fold and its sides; a side without speakers is left out."""

    fold: Fold
    sides: tuple[SideCount, ...]

    def side(self, name: str) -> SideCount | None:
        return next((side for side in self.sides if side.name == name), None)

    def absent(self) -> str:
        """The classes that are absent, by side; "" if there are none."""
        return "; ".join(f"{s.name}: {', '.join(s.absent)}" for s in self.sides if s.absent)


def count_folds(
    utterances: Sequence[Utterance],
    folds: Iterable[Fold],
    emotions: Sequence[str],
    durations: Mapping[str, float] | None = None,
) -> Iterator[FoldCount]:
    """Speakers, utterances, seconds and absent classes of each side.

    Args:
        utterances: of the whole corpus.
        folds: as ``corpora.folds.plan_folds`` gives them.
        emotions: the class list.
        durations: seconds by utterance id, where they are known; those of segments always are.
    """
    per_speaker: dict[str, Counter[str]] = {}
    seconds: dict[str, float | None] = {}
    for u in utterances:
        per_speaker.setdefault(u.speaker, Counter())[u.emotion] += 1
        known, more = seconds.get(u.speaker, 0.0), _seconds(u, durations or {})
        seconds[u.speaker] = None if known is None or more is None else known + more
    for fold in folds:
        sides = {
            "training": fold.train_speakers,
            "validation": fold.valid_speakers,
            "test": fold.test_speakers,
        }
        yield FoldCount(
            fold,
            tuple(
                _side(name, speakers, per_speaker, seconds, emotions)
                for name, speakers in sides.items()
                if speakers
            ),
        )


def _side(
    name: str,
    speakers: Sequence[str],
    per_speaker: Mapping[str, Counter[str]],
    seconds: Mapping[str, float | None],
    emotions: Sequence[str],
) -> SideCount:
    counts: Counter[str] = Counter()
    for speaker in speakers:
        counts.update(per_speaker.get(speaker, Counter()))
    known = [seconds.get(speaker) for speaker in speakers]
    told = [s for s in known if s is not None]
    return SideCount(
        name,
        len(speakers),
        counts.total(),
        sum(told) if len(told) == len(known) else None,
        tuple(emotion for emotion in emotions if not counts[emotion]),
    )


def _seconds(u: Utterance, durations: Mapping[str, float]) -> float | None:
    if u.utterance_id in durations:
        return durations[u.utterance_id]
    return None if u.end_s is None else u.end_s - (u.start_s or 0.0)
