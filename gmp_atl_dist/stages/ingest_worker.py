"""The worker of stage ``ingest``: one part after the other, from files to a table of samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.audio_measures import AudioTable, measures_of
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.recordings import CANNOT_BE_USED, Recording, Recordings, problem_of
from gmp_atl_dist.corpora.vad import LONGEST_S, SpeechCut, segment_id
from gmp_atl_dist.records import AUDIO_SCHEMA, UTTERANCE_SCHEMA, Problem, Utterance
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.readers import audio_measures_name, pcm16_sha256
from gmp_atl_dist.store.writer import ArtifactWriter

_ROW_GROUP_ROWS = 64
"""Small enough that readers can fetch some rows of a part without the others."""
_LABELS = ("utterance_id", "speaker", "gender", "emotion", "session", "split")
_MOST_BYTES = 2**31 - 1
"""In one Arrow array of binary values."""


@dataclass(frozen=True)
class PartDecoderArgument:
    """The corpus, the store, the artefact that parts belong to, and what decides about samples."""

    source: Store
    store: Store
    key: ArtifactKey
    config: CorpusConfig
    cut: SpeechCut | None = None


class PartDecoder:
    """Decodes one part. A bad recording is left out; the rest of the part is stored.

    A recording is bad when its own bytes are at fault, or when the file is missing. A store that cannot
    be read is an error that stops the run; the next run resumes after the finished parts.
    """

    def __init__(self, argument: PartDecoderArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        config = argument.config
        if argument.cut is not None:
            config = config.model_copy(update={"max_s": LONGEST_S})
        self._recordings = Recordings(argument.source, config)

    def __call__(self, task: Task) -> str:
        return self.begin(task)()

    def begin(self, task: Task) -> Callable[[], str]:
        decoded: list[DecodedUtterance] = []
        problems: list[Problem] = []
        utterances = [Utterance(**values) for values in json.loads(task.payload)]
        with self._recordings.ahead(utterances):
            for utterance in utterances:
                try:
                    decoded += [
                        DecodedUtterance.of(one, found) for one, found in self._read(utterance)
                    ]
                except CANNOT_BE_USED as e:
                    problems.append(problem_of(utterance, e))
        if self._argument.cut is not None:
            # Ids of segments may sort in another way than those of their recordings.
            decoded.sort(key=lambda one: one.utterance.utterance_id)
        ids = [one.utterance.utterance_id for one in decoded]
        measured = AudioTable.of(ids, [one.measures for one in decoded])
        audio_s = sum(len(one.pcm16) for one in decoded) / SAMPLE_RATE_HZ
        return partial(
            self._put, task.name, table_of_part(task.name, decoded), measured, audio_s, problems
        )

    def _put(
        self,
        name: str,
        table: pa.Table,
        measured: AudioTable,
        audio_s: float,
        problems: list[Problem],
    ) -> str:
        # Before the part: a part that is there has its measures.
        self._out.put_file(audio_measures_name(name), measured.to_json())
        receipt = self._out.put_part(
            name, table, audio_s=audio_s, problems=problems, row_group_rows=_ROW_GROUP_ROWS
        )
        return receipts_json([receipt])

    def _read(self, utterance: Utterance) -> list[tuple[Utterance, Recording]]:
        """The utterance; of a long recording that is cut, each of its utterances."""
        whole, cut = self._recordings.read(utterance), self._argument.cut
        spans = [] if cut is None else cut.spans(whole.pcm16)
        if spans in ([], [(0, len(whole.pcm16))]):
            return [(utterance, whole)]
        return [
            (
                replace(utterance, utterance_id=segment_id(utterance.utterance_id, start, end)),
                replace(whole, pcm16=whole.pcm16[start:end]),
            )
            for start, end in spans
        ]


@dataclass(frozen=True)
class DecodedUtterance:
    """An utterance, its samples (N,), and what is computed from them."""

    utterance: Utterance
    pcm16: npt.NDArray[np.int16]
    audio_sha256: str
    measures: dict[str, float]

    @classmethod
    def of(cls, utterance: Utterance, recording: Recording) -> DecodedUtterance:
        # At once, while the samples are in the cache of the core.
        pcm16 = recording.pcm16
        return cls(utterance, pcm16, pcm16_sha256(pcm16), measures_of(pcm16, recording.header))


def table_of_part(part: str, decoded: list[DecodedUtterance]) -> pa.Table:
    """The rows of a part, in this order. Made column by column, so that samples are copied once."""
    columns: dict[str, Sequence[object]] = {
        name: [getattr(one.utterance, name) for one in decoded] for name in _LABELS
    }
    columns["num_samples"] = [len(one.pcm16) for one in decoded]
    columns["audio_sha256"] = [one.audio_sha256 for one in decoded]
    columns["part"] = [part] * len(decoded)
    columns["row"] = range(len(decoded))
    arrays = [pa.array(columns[field.name], field.type) for field in UTTERANCE_SCHEMA]
    return pa.Table.from_arrays(
        [*arrays, _binary([one.pcm16 for one in decoded])], schema=AUDIO_SCHEMA
    )


def _binary(samples: Sequence[npt.NDArray[np.int16]]) -> pa.Array | pa.ChunkedArray:
    """Samples of R rows as little-endian bytes."""
    ends = np.cumsum([0, *(2 * len(one) for one in samples)], dtype=np.int64)
    if ends[-1] > _MOST_BYTES:
        # Arrow makes as many arrays of them as are needed.
        return pa.array([one.astype("<i2", copy=False).tobytes() for one in samples], pa.binary())
    values = np.concatenate([np.empty(0, "<i2"), *samples], dtype="<i2")
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(samples), buffers)
