"""The records that travel between stages, their Arrow schemas, and their units.

Samples are 16 kHz mono. Frames are HuBERT's: 50 a second, see :mod:`gmp_atl_dist.audio`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import pyarrow as pa

from gmp_atl_dist.errors import CorpusError

Gender = Literal["female", "male"]
GENDERS: tuple[Gender, ...] = ("female", "male")
"""Class order of the gender head; label ids of ``by_gender`` codebooks follow it as well."""
UNKNOWN_GENDER: Literal["unknown"] = "unknown"
"""Of speakers whose gender a corpus does not tell. Runs that use gender refuse it."""
EVERYBODY = "all"
"""The group of a codebook for both genders."""

Split = Literal["train", "valid", "test"]
Channel = Literal["mean", "first", "loudest"]
"""What becomes mono of several channels: their mean, the first, or the one with the most energy."""
DEFAULT_CHANNEL: Channel = "mean"


def qualified(source: str, name: str) -> str:
    """A name of a corpus within a run of several: ``emodb/03``. What has no name has none here either."""
    return f"{source}/{name}" if name else ""


def source_of(name: str) -> str:
    """The source of an id, speaker or session of :func:`qualified`."""
    return name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Problem:
    """A bad item: its name, what is wrong with it, and how to fix it."""

    item: str
    reason: str

    def __str__(self) -> str:
        return f"{self.item}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Note(Problem):
    """Something about a corpus that a reader of its results should know. It leaves no utterance out."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled utterance of a corpus, before its audio is read.

    ``path`` is relative to the corpus root, with forward slashes. ``start_s`` and ``end_s`` are the limits
    of a segment of the recording; None means its beginning or its end.
    """

    utterance_id: str
    path: str
    speaker: str
    gender: Gender | Literal["unknown"]
    emotion: str
    session: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class StoredUtterance:
    """An utterance whose audio lies in the store: row ``row`` of part ``part`` of ``ingest``.

    ``audio_sha256`` is the digest of its 16 kHz mono 16-bit samples, so that identity depends on the
    samples and not on the name or container of a file.
    """

    utterance_id: str
    speaker: str
    gender: Gender | Literal["unknown"]
    emotion: str
    session: str
    split: str
    num_samples: int
    audio_sha256: str
    part: str
    row: int


@dataclass(frozen=True, slots=True)
class UtteranceGroup:
    """Utterances that agree in all that folds are planned from: ``count`` of them, named by the first."""

    utterance_id: str
    speaker: str
    gender: str
    emotion: str
    session: str
    split: str
    count: int


UTTERANCE_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("session", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("num_samples", pa.int64(), nullable=False),
        pa.field("audio_sha256", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)

_REPEATED = ("speaker", "gender", "emotion", "session", "split", "part")

AUDIO_SCHEMA = pa.schema([*UTTERANCE_SCHEMA, pa.field("pcm16", pa.binary(), nullable=False)])
"""A part of ``ingest``: the utterance, then its samples as little-endian int16."""

FEATURE_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("dim", pa.int32(), nullable=False),
        pa.field("frames", pa.binary(), nullable=False),
    ]
)
"""One row per utterance and layer; ``frames`` is fp16, C order, ``num_frames`` x ``dim``.

Features that were imported as fp32 stay fp32. The size of ``frames`` tells the type.
"""

LABEL_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("codebooks", pa.list_(pa.field("codebook", pa.string(), nullable=False))),
        pa.field("labels", pa.list_(pa.field("ids", pa.binary(), nullable=False))),
    ]
)
"""One row per utterance. For each scale, in order: the fingerprint of the codebook of its labels, and the
labels, one per frame, as little-endian int16, or int32 if ids exceed 32,767."""

CODEBOOK_SCHEMA = pa.schema(
    [
        pa.field("scale", pa.int32(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("offset", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("dim", pa.int32(), nullable=False),
        pa.field("centroids", pa.binary(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("fitted_frames", pa.int64()),
        pa.field(
            "mean_squared_distances",
            pa.list_(pa.field("mean_squared_distance", pa.float64(), nullable=False)),
        ),
        pa.field("relocated", pa.int64()),
        pa.field("stability", pa.float64()),
    ]
)
"""One row per codebook. ``centroids`` is fp32, C order, ``k`` x ``dim``; label ids start at ``offset``.

``fingerprint`` is the digest of layer, metric and centroids; labels carry it, so that they tell their
codebook. ``origin`` is "fitted", or says where the codebook was imported from. The columns of a fit are
null for an imported one: its seed, its number of frames, the mean squared distance of a frame to its
centroid before each update and at the end, the number of empty clusters that were relocated, and the
adjusted Rand index of two fits from two seeds.
"""

CURVE_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""Learning curves: one row per step and metric."""

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("predicted", pa.string(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),
    ]
)
"""One row per test utterance; ``probabilities`` follow the fold's fixed class list."""

GENDER_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)
"""One row per utterance whose gender the corpus does not tell: the more probable one, and its probability."""


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


def utterances_to_table(utterances: Sequence[StoredUtterance]) -> pa.Table:
    """The utterances as a table of ``UTTERANCE_SCHEMA``, in the order given."""
    columns = {name: [getattr(u, name) for u in utterances] for name in UTTERANCE_SCHEMA.names}
    return pa.table(columns, schema=UTTERANCE_SCHEMA)


def utterances_from_table(table: pa.Table) -> tuple[StoredUtterance, ...]:
    """The inverse of :func:`utterances_to_table`. Equal names of many utterances are one string."""
    columns = [
        _shared(table[name]) if name in _REPEATED else table[name].to_pylist()
        for name in UTTERANCE_SCHEMA.names
    ]
    return tuple(map(StoredUtterance, *columns))


def _shared(column: pa.ChunkedArray) -> list[str]:
    return [sys.intern(text) for text in column.to_pylist()]
