"""The records that travel between stages, their Arrow schemas, and their units.

Samples are 16 kHz mono. Frames are HuBERT's: 50 a second, see :mod:`gmp_atl_dist.audio`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

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
