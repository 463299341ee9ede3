"""Folds, and the speakers and utterances of each side. Whatever is fitted takes :class:`TrainingSpeakers`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Split, StoredUtterance


@dataclass(frozen=True)
class FoldUtterances:
    """The utterance ids of each side, for folds that are not told by their speakers alone.

    Raises:
        CorpusError: an utterance is on two sides.
    """

    train: frozenset[str]
    test: frozenset[str]
    valid: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        problems = [
            f"utterance {name!r} is in both {a} and {b}; give each utterance to one side only"
            for a, b in _PAIRS
            for name in sorted(getattr(self, a) & getattr(self, b))
        ]
        if problems:
            raise CorpusError.of_all("a fold cannot be used:", problems)

    def of(self, *sides: Split) -> frozenset[str]:
        """The ids of the named sides."""
        ids: frozenset[str] = frozenset()
        return ids.union(*(getattr(self, side) for side in sides))


_SIDES: tuple[Split, ...] = ("train", "valid", "test")
_PAIRS: tuple[tuple[Split, Split], ...] = (
    ("train", "test"),
    ("train", "valid"),
    ("valid", "test"),
)


@dataclass(frozen=True)
class Fold:
    """The training, validation and test speakers. No speaker is on two sides.

    Every stage that fits something takes the ``training_speakers`` of a fold, so leakage is an error at
    construction.

    Attributes:
        utterances: which utterances of these speakers are on each side; None: all of them.
        speaker_dependent: a speaker may be on two sides. Only the protocol of that name makes such folds,
            and then ``utterances`` says which utterance is where.
        notes: what people should know about the fold: partners on two sides, utterances that are left out.

    Raises:
        CorpusError: a speaker is on two sides, or the training or test side is empty.
    """

    name: str
    train_speakers: tuple[str, ...]
    test_speakers: tuple[str, ...]
    valid_speakers: tuple[str, ...] = ()
    unlabelled_speakers: tuple[str, ...] = ()
    """Of speech without emotion labels: pseudo-labels are fitted on it too, and nothing else is."""
    pretrain_speakers: tuple[str, ...] = ()
    """Of speech without emotion labels that pretraining uses, and nothing else."""
    utterances: FoldUtterances | None = None
    speaker_dependent: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.speaker_dependent and self.utterances is None:
            raise ValueError(f"fold {self.name!r}: is speaker-dependent and names no utterances")
        problems = [
            f"speaker {speaker!r} is in both {a} and {b}; give each speaker to one side only"
            for a, b in _PAIRS
            for speaker in self.shared_speakers(a, b)
            if not self.speaker_dependent
        ]
        problems += [
            f"speaker {speaker!r} is in both {side} and unlabelled; give each speaker to one side only"
            for side in _SIDES
            for speaker in sorted(set(self.speakers(side)) & self._without_labels)
        ]
        problems += [
            f"no speaker is in {side}; change folds.by or folds.held_out"
            for side in ("train", "test")
            if not self.speakers(side)
        ]
        if problems:
            raise CorpusError.of_all(f"fold {self.name!r} cannot be used:", problems)
        for side in _SIDES:
            object.__setattr__(self, f"{side}_speakers", tuple(sorted(set(self.speakers(side)))))
        for name in ("unlabelled_speakers", "pretrain_speakers"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def speakers(self, side: Split) -> tuple[str, ...]:
        """The speakers of a side."""
        sides = {
            "train": self.train_speakers,
            "valid": self.valid_speakers,
            "test": self.test_speakers,
        }
        return sides[side]

    @property
    def _without_labels(self) -> frozenset[str]:
        return frozenset({*self.unlabelled_speakers, *self.pretrain_speakers})

    def shared_speakers(self, a: Split, b: Split) -> tuple[str, ...]:
        """The speakers that are on both sides, sorted; none unless the fold is speaker-dependent."""
        return tuple(sorted(set(self.speakers(a)) & set(self.speakers(b))))

    def select(
        self, utterances: Iterable[StoredUtterance], *sides: Split
    ) -> tuple[StoredUtterance, ...]:
        """The utterances of the named sides, in utterance-id order."""
        wanted = {speaker for side in sides for speaker in self.speakers(side)}
        ids = self.utterance_ids(*sides)
        return tuple(
            sorted(
                (
                    u
                    for u in utterances
                    if u.speaker in wanted and (ids is None or u.utterance_id in ids)
                ),
                key=lambda u: u.utterance_id,
            )
        )

    def utterance_ids(self, *sides: Split) -> frozenset[str] | None:
        """The utterances of the sides; None: all of their speakers."""
        return None if self.utterances is None else self.utterances.of(*sides)

    def hashed_utterances(self, *sides: Split) -> dict[str, str]:
        """What fingerprints hash beside the speakers; nothing where the speakers tell all."""
        if self.utterances is None:
            return {}
        return {f"{side}_utterances": _digest(self.utterances.of(side)) for side in sides}

    def training_speakers(self) -> TrainingSpeakers:
        """The speakers that fitted stages may use."""
        return TrainingSpeakers(self.train_speakers, self)

    def pseudo_label_speakers(self) -> TrainingSpeakers:
        """The training speakers, and those of unlabelled speech: for stages that use no emotion label."""
        if not self.unlabelled_speakers:
            return self.training_speakers()
        both = sorted({*self.train_speakers, *self.unlabelled_speakers})
        return TrainingSpeakers(tuple(both), self, unlabelled=True)

    def transductive_speakers(self) -> TrainingSpeakers:
        """All speakers, for the experimental arm that is called transductive."""
        everybody = {*self.train_speakers, *self.valid_speakers, *self.test_speakers}
        everybody |= {*self.unlabelled_speakers}
        return TrainingSpeakers(tuple(sorted(everybody)), self, transductive=True)

    def with_pretrain_speakers(self, speakers: TrainingSpeakers) -> TrainingSpeakers:
        """``speakers`` of this fold, and those of speech that only pretraining uses."""
        everybody = tuple(sorted({*speakers.speakers, *self.pretrain_speakers}))
        return replace(speakers, speakers=everybody, pretraining=True)


@dataclass(frozen=True)
class TrainingSpeakers:
    """Speakers that a fitted stage may use. Every such stage takes this type.

    ``unlabelled`` also allows the speakers of unlabelled speech. It is set for stages that use no emotion.
    ``pretraining`` also allows those of speech that only pretraining uses.
    Where a fold names utterances, only its training utterances of these speakers may be used.

    Raises:
        CorpusError: one is not a training speaker of the fold, and the arm is not ``transductive``.
    """

    speakers: tuple[str, ...]
    fold: Fold
    transductive: bool = False
    unlabelled: bool = False
    pretraining: bool = False

    def __post_init__(self) -> None:
        if self.transductive and self.fold.speaker_dependent:
            raise CorpusError(
                f"fold {self.fold.name!r}: is speaker-dependent, so it has no transductive arm"
            )
        allowed = {*self.fold.train_speakers}
        if self.unlabelled:
            allowed |= {*self.fold.unlabelled_speakers}
        if self.pretraining:
            allowed |= {*self.fold.pretrain_speakers}
        if self.transductive:
            allowed |= {*self.fold.valid_speakers, *self.fold.test_speakers}
            allowed |= {*self.fold.unlabelled_speakers}
        leaks = set(self.speakers) - allowed
        if leaks:
            raise CorpusError.of_all(
                f"fold {self.fold.name!r}: a fitted stage was given speakers outside the training set; "
                f"use fold.training_speakers():",
                [f"speaker {speaker!r}" for speaker in sorted(leaks)],
            )

    @property
    def _sides(self) -> tuple[Split, ...]:
        return ("train", "valid", "test") if self.transductive else ("train",)

    @cached_property
    def utterance_ids(self) -> frozenset[str] | None:
        """The utterances that may be used; None: all of the speakers."""
        return self.fold.utterance_ids(*self._sides)

    def hashed(self) -> dict[str, list[str] | str]:
        """What fingerprints hash of a training set."""
        return {"speakers": list(self.speakers), **self.fold.hashed_utterances(*self._sides)}

    def holds(self, utterance_id: str, speaker: str) -> bool:
        """Whether a fitted stage may use this utterance."""
        ids = self.utterance_ids
        return speaker in self.speakers and (ids is None or utterance_id in ids)

    def with_emotions(self, stage: str) -> TrainingSpeakers:
        """These speakers, for a stage that is trained on emotion labels.

        Raises:
            CorpusError: one of them is of unlabelled speech.
        """
        unlabelled = sorted(
            set(self.speakers) & {*self.fold.unlabelled_speakers, *self.fold.pretrain_speakers}
        )
        if unlabelled:
            raise CorpusError.of_all(
                f"{stage} of fold {self.fold.name!r} learns emotions, and was given speakers of unlabelled "
                f"speech; use fold.training_speakers():",
                [f"speaker {speaker!r}" for speaker in unlabelled],
            )
        return self

    def check(self, utterance_id: str, speaker: str | None) -> None:
        """Refuse an utterance of any other speaker, or of another side.

        Raises:
            CorpusError: names the utterance.
        """
        if speaker is None or speaker not in self.speakers:
            raise CorpusError(
                f"utterance {utterance_id!r} is not of a training speaker of fold "
                f"{self.fold.name!r}, so no fitted stage may use it: extract the training set alone"
            )
        if not self.holds(utterance_id, speaker):
            raise CorpusError(
                f"utterance {utterance_id!r} is no training utterance of fold {self.fold.name!r}, so "
                f"no fitted stage may use it: extract the training set alone"
            )


def _digest(ids: Iterable[str]) -> str:
    """sha256 of a set of ids; their order changes nothing."""
    return hashlib.sha256(json.dumps(sorted(ids)).encode()).hexdigest()
