"""What the sides of each fold would hold, from labels alone.

``corpora check`` and ``doctor`` show it, so that a plan that cannot work is seen before audio is decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import Split, Utterance
from gmp_atl_dist.wording import counted

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
        return f"{counted(self.utterances, 'utterance')}, {counted(self.speakers, 'speaker')}, {hours} h"


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
    of_speakers: dict[str, _Tally] = {}
    for u in utterances:
        of_speakers.setdefault(u.speaker, _Tally()).add(u, durations or {})
    for fold in folds:
        sides: list[SideCount] = []
        for side, name in _NAMES.items():
            speakers, ids = fold.speakers(side), fold.utterance_ids(side)
            tally = _Tally()
            if ids is None:
                for speaker in speakers:
                    tally.merge(of_speakers.get(speaker, _Tally()))
            else:
                for u in utterances:
                    if u.utterance_id in ids:
                        tally.add(u, durations or {})
            if speakers:
                sides.append(tally.side(name, len(speakers), emotions))
        yield FoldCount(fold, tuple(sides))


_NAMES: Mapping[Split, str] = {"train": "training", "valid": "validation", "test": "test"}


@dataclass
class _Tally:
    """Utterances by emotion, and their seconds; None as soon as one duration is not known."""

    emotions: Counter[str] = field(default_factory=Counter)
    seconds: float | None = 0.0

    def add(self, u: Utterance, durations: Mapping[str, float]) -> None:
        self.emotions[u.emotion] += 1
        self._more(_seconds(u, durations))

    def merge(self, other: _Tally) -> None:
        self.emotions.update(other.emotions)
        self._more(other.seconds)

    def _more(self, seconds: float | None) -> None:
        if self.seconds is not None:
            self.seconds = None if seconds is None else self.seconds + seconds

    def side(self, name: str, speakers: int, classes: Sequence[str]) -> SideCount:
        absent = tuple(emotion for emotion in classes if not self.emotions[emotion])
        return SideCount(name, speakers, self.emotions.total(), self.seconds, absent)


def _seconds(u: Utterance, durations: Mapping[str, float]) -> float | None:
    if u.utterance_id in durations:
        return durations[u.utterance_id]
    return None if u.end_s is None else u.end_s - (u.start_s or 0.0)
