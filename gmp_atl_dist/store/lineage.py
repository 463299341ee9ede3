"""The lineage of a model: what it and the models before it were trained on, without names or audio.

An exported model carries it in ``config.json`` under ``LINEAGE_KEY``, and a ``backbone`` artefact in the file
``LINEAGE_NAME``. Speakers are sha256 digests of their names, salted with the identity of their corpus.
Whoever has the corpus knows the names, so it is compared from that side. Recordings are the first 64 bits of
the sha256 of their samples: they find the same recording in any corpus, whatever its labels.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gmp_atl_dist.errors import ModelError

LINEAGE_KEY = "gmp_atl_lineage"
LINEAGE_NAME = "lineage.json"
USE_EMOTIONS = frozenset({"warmup", "finetune"})
"""Stages that are trained on emotion labels. The others use audio alone."""
MOST_RECORDINGS = 20_000
"""Of more, each speaker has the same number, those with the smallest digests: a sample that another corpus
with the same recordings would draw too. 20,000 take 210 kB of ``config.json``."""
_KEY_BYTES = 8
"""Two of 20,000 x 20,000 different recordings have the same 64 bits once in 5e10 comparisons of corpora."""
_SPEAKER_DIGITS = 32


def speaker_digest(corpus: str, speaker: str) -> str:
    """What a lineage says in place of a speaker's name; ``corpus`` is the identity of the corpus."""
    text = f"{corpus}\n{speaker}".encode()
    return hashlib.sha256(text).hexdigest()[:_SPEAKER_DIGITS]


def recording_keys(audio_sha256: Iterable[str]) -> np.ndarray:
    """uint64 [recordings]: what a lineage says in place of recordings, in the order given."""
    raw = b"".join(bytes.fromhex(digest[: 2 * _KEY_BYTES]) for digest in audio_sha256)
    return np.frombuffer(raw, ">u8").astype(np.uint64)


def _is_base64(value: object) -> object:
    """Raises ValueError where a text is no base64 of whole keys."""
    if isinstance(value, str) and len(base64.b64decode(value, validate=True)) % _KEY_BYTES:
        raise ValueError("is no whole number of recordings")
    return value


class TrainedOn(BaseModel):
    """The training set of one or several stages of one fold.

    Attributes:
        stages: their names, in order.
        fold: its name in that run; empty if it is not known.
        corpus: the identity of the corpus.
        adapter: who read it; empty for several corpora.
        speakers: digests of the speakers, sorted.
        num_recordings: how many utterances.
        recordings: base64 of sorted big-endian uint64; a sample if they are more than MOST_RECORDINGS.
        utterances: digests of the sides of a fold that names utterances, by side; else empty.
        exact: False if only some utterances of the speakers were used, and which ones is not known.
            ``recordings`` then has all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[str, ...] = Field(min_length=1)
    fold: str = ""
    corpus: str
    adapter: str = ""
    speakers: tuple[str, ...]
    num_recordings: int
    recordings: Annotated[str, BeforeValidator(_is_base64)]
    utterances: dict[str, str] = Field(default_factory=dict)
    exact: bool = True

    @classmethod
    def of(
        cls,
        rows: pa.Table,
        *,
        stages: Sequence[str],
        fold: str,
        corpus: str,
        adapter: str,
        utterances: Mapping[str, str],
        exact: bool = True,
    ) -> Self:
        """The training set with these rows: columns ``speaker`` and ``audio_sha256``."""
        keys = recording_keys(rows["audio_sha256"].to_pylist())
        names, number_U = np.unique(np.array(rows["speaker"].to_pylist()), return_inverse=True)
        kept = _sample(keys, number_U, len(names))
        return cls(
            stages=tuple(stages),
            fold=fold,
            corpus=corpus,
            adapter=adapter,
            speakers=tuple(sorted(speaker_digest(corpus, str(name)) for name in names)),
            num_recordings=len(keys),
            recordings=base64.b64encode(kept.astype(">u8").tobytes()).decode(),
            utterances=dict(utterances),
            exact=exact,
        )

    @property
    def keys(self) -> np.ndarray:
        """uint64 [recordings], sorted."""
        raw = base64.b64decode(self.recordings)
        return np.frombuffer(raw, ">u8").astype(np.uint64)

    @property
    def uses_emotions(self) -> bool:
        """Whether emotion labels of these recordings were used."""
        return not USE_EMOTIONS.isdisjoint(self.stages)

    def knows(self, speakers: Collection[str]) -> tuple[str, ...]:
        """The names whose digests are in it, sorted."""
        own = set(self.speakers)
        return tuple(sorted(s for s in speakers if speaker_digest(self.corpus, s) in own))

    def describe(self) -> str:
        """``warmup and retrain of fold1 on 8 speakers and 32 recordings of corpus 21ff0eb0 (iemocap)``."""
        *before, last = self.stages
        stages = f"{', '.join(before)} and {last}" if before else last
        where = f" of {self.fold}" if self.fold else ""
        adapter = f" ({self.adapter})" if self.adapter else ""
        return (
            f"{stages}{where} on {len(self.speakers)} speakers and {self.num_recordings} recordings of "
            f"corpus {self.corpus[:8]}{adapter}"
        )


def _sample(keys_U: np.ndarray, speaker_U: np.ndarray, num_speakers: int) -> np.ndarray:
    """All keys, or of each speaker the smallest ones; sorted, each once."""
    if len(keys_U) > MOST_RECORDINGS:
        most = max(1, MOST_RECORDINGS // num_speakers)
        order = np.lexsort((keys_U, speaker_U))
        of_speaker = speaker_U[order]
        first = np.searchsorted(of_speaker, of_speaker, side="left")
        keys_U = keys_U[order][np.arange(len(order)) - first < most]
    return np.unique(keys_U)


class Lineage(BaseModel):
    """What a model was trained on, from its start.

    Attributes:
        version: of this form.
        start: the model that the first training began from, in words.
        trained_on: the training sets, in order.
        codebooks: what owners of imported codebooks declare, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    start: str
    trained_on: tuple[TrainedOn, ...] = ()
    codebooks: tuple[str, ...] = ()

    @classmethod
    def read(cls, values: object, name: str) -> Lineage:
        """The lineage in a file of the model ``name``; ``values`` is a mapping, or the bytes of JSON.

        Raises:
            ModelError: it is damaged, or of a later release.
        """
        try:
            if isinstance(values, bytes):
                return cls.model_validate_json(values)
            return cls.model_validate(values)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ModelError(
                f"{name}: its lineage ({LINEAGE_KEY}) cannot be read at {where or 'its top'}: "
                f"{first['msg']}; export the model again with this release"
            ) from None

    def to_json(self) -> bytes:
        """The same bytes for the same lineage."""
        return self.model_dump_json().encode()

    def describe(self) -> str:
        """What it was trained on, in words, without the start."""
        return "; ".join(trained.describe() for trained in self.trained_on)


def rows_of(
    index: pa.Table, speakers: Sequence[str], utterance_ids: Collection[str] | None
) -> pa.Table:
    """The rows of an index of these speakers; with ``utterance_ids`` only those of them."""
    selected = pc.field("speaker").isin(pa.array(speakers, pa.string()))
    if utterance_ids is not None:
        selected &= pc.field("utterance_id").isin(pa.array(sorted(utterance_ids), pa.string()))
    return index.filter(selected)
