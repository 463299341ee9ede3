"""The records that travel between stages, their Arrow schemas, and their units.

Samples are 16 kHz mono. Frames are HuBERT's: 50 a second, see :mod:`gmp_atl_dist.audio`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
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


@dataclass(frozen=True)
class Fold:
    """The training, validation and test speakers. No speaker is on two sides.

    Every stage that fits something takes the ``training_speakers`` of a fold, so leakage is an error at
    construction.

    Raises:
        CorpusError: a speaker is on two sides, or the training or test side is empty.
    """

    name: str
    train_speakers: tuple[str, ...]
    test_speakers: tuple[str, ...]
    valid_speakers: tuple[str, ...] = ()
    unlabelled_speakers: tuple[str, ...] = ()
    """Of speech without emotion labels: pseudo-labels are fitted on it too, and nothing else is."""

    def __post_init__(self) -> None:
        sides = {
            "train": self.train_speakers,
            "valid": self.valid_speakers,
            "test": self.test_speakers,
            "unlabelled": self.unlabelled_speakers,
        }
        problems = [
            f"speaker {speaker!r} is in both {a} and {b}; give each speaker to one side only"
            for a, b in combinations(sides, 2)
            for speaker in sorted(set(sides[a]) & set(sides[b]))
        ]
        problems += [
            f"no speaker is in {side}; change folds.by or folds.held_out"
            for side in ("train", "test")
            if not sides[side]
        ]
        if problems:
            raise CorpusError.of_all(f"fold {self.name!r} cannot be used:", problems)
        for side in sides:
            object.__setattr__(self, f"{side}_speakers", tuple(sorted(set(sides[side]))))

    def select(
        self, utterances: Iterable[StoredUtterance], *sides: Split
    ) -> tuple[StoredUtterance, ...]:
        """The utterances of the named sides, in utterance-id order."""
        wanted: set[str] = set()
        for side in sides:
            wanted.update(getattr(self, f"{side}_speakers"))
        return tuple(
            sorted((u for u in utterances if u.speaker in wanted), key=lambda u: u.utterance_id)
        )

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


@dataclass(frozen=True)
class TrainingSpeakers:
    """Speakers that a fitted stage may use. Every such stage takes this type.

    ``unlabelled`` also allows the speakers of unlabelled speech. It is set for stages that use no emotion.

    Raises:
        CorpusError: one is not a training speaker of the fold, and the arm is not ``transductive``.
    """

    speakers: tuple[str, ...]
    fold: Fold
    transductive: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        allowed = {*self.fold.train_speakers}
        if self.unlabelled:
            allowed |= {*self.fold.unlabelled_speakers}
        leaks = set() if self.transductive else set(self.speakers) - allowed
        if leaks:
            raise CorpusError.of_all(
                f"fold {self.fold.name!r}: a fitted stage was given speakers outside the training set; "
                f"use fold.training_speakers():",
                [f"speaker {speaker!r}" for speaker in sorted(leaks)],
            )

    def with_emotions(self, stage: str) -> TrainingSpeakers:
        """These speakers, for a stage that is trained on emotion labels.

        Raises:
            CorpusError: one of them is of unlabelled speech.
        """
        unlabelled = sorted(set(self.speakers) & set(self.fold.unlabelled_speakers))
        if unlabelled:
            raise CorpusError.of_all(
                f"{stage} of fold {self.fold.name!r} learns emotions, and was given speakers of unlabelled "
                f"speech; use fold.training_speakers():",
                [f"speaker {speaker!r}" for speaker in unlabelled],
            )
        return self

    def check(self, utterance_id: str, speaker: str | None) -> None:
        """Refuse an utterance of any other speaker.

        Raises:
            CorpusError: names the utterance.
        """
        if speaker is None or speaker not in self.speakers:
            raise CorpusError(
                f"utterance {utterance_id!r} is not of a training speaker of fold "
                f"{self.fold.name!r}, so no fitted stage may use it: extract the training set alone"
            )


def utterances_to_table(utterances: Sequence[StoredUtterance]) -> pa.Table:
    """The utterances as a table of ``UTTERANCE_SCHEMA``, in the order given."""
    return pa.Table.from_pylist(
        [{name: getattr(u, name) for name in UTTERANCE_SCHEMA.names} for u in utterances],
        schema=UTTERANCE_SCHEMA,
    )


def utterances_from_table(table: pa.Table) -> tuple[StoredUtterance, ...]:
    """The inverse of :func:`utterances_to_table`."""
    return tuple(StoredUtterance(**row) for row in table.select(UTTERANCE_SCHEMA.names).to_pylist())
