"""Stage ``ingest``: recordings to 16 kHz mono samples in the store, checked once.

Parts are planned from the sizes of the files. The fingerprint follows the files' sizes and times, so a
corpus that changed is read again. The identity follows the samples and labels, so a corpus that was only
moved changes nothing downstream. Beside each part lies a small file with measures of its audio, which the
report shows and no other stage reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.audio_measures import AudioTable, measures_of
from gmp_atl_dist.config import CorpusConfig, Json, canonical_json, hashed
from gmp_atl_dist.corpora.addresses import in_reading_order
from gmp_atl_dist.corpora.base import CorpusListing, read_corpus
from gmp_atl_dist.corpora.checks import refuse_too_many_bad
from gmp_atl_dist.corpora.recordings import CANNOT_BE_USED, Recording, Recordings, problem_of
from gmp_atl_dist.corpora.same_audio import same_samples
from gmp_atl_dist.corpora.vad import LONGEST_S, SpeechCut, segment_id
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import (
    AUDIO_SCHEMA,
    DEFAULT_CHANNEL,
    UTTERANCE_SCHEMA,
    Problem,
    StoredUtterance,
    Utterance,
    utterances_to_table,
)
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Seal, Stage
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import (
    Artifact,
    ArtifactKey,
    ArtifactWriter,
    Receipt,
    receipts_json,
)
from gmp_atl_dist.store.audio_paths import put_audio_paths
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import (
    INDEX_PART,
    audio_measures_name,
    pcm16_sha256,
    read_part_utterances,
)

_BYTES_A_SECOND = SAMPLE_RATE_HZ * 2
_ROW_GROUP_ROWS = 64
"""Small enough that readers can fetch some rows of a part without the others."""
_FIELDS = tuple(field.name for field in fields(Utterance))
_LABELS = ("utterance_id", "speaker", "gender", "emotion", "session", "split")
_MOST_BYTES = 2**31 - 1
"""In one Arrow array of binary values."""
_ROWS_AT_ONCE = 1 << 12
_SHOWN_BAD = 3


@dataclass(frozen=True)
class Ingest(Stage):
    """Every utterance of the corpus as 16 kHz mono samples, checked, with its sha256."""

    config: CorpusConfig
    source: Store
    read: Callable[[CorpusConfig, Store], CorpusListing] = read_corpus
    """Lists the corpus; called when the listing is first needed."""
    source_name: str = ""
    """Of one of several corpora. Part of the stage's name only."""
    cut: SpeechCut | None = None
    """How long recordings are cut; None: they are refused."""

    kind: ClassVar[str] = "ingest"
    identity_is_fingerprint: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.source_name}" if self.source_name else self.kind

    @cached_property
    def listing(self) -> CorpusListing:
        """What the corpus adapter finds; read when it is first needed.

        Raises:
            CorpusError: the corpus cannot be used; names every bad item.
        """
        return self.read(self.config, self.source)

    def science(self) -> dict[str, Json]:
        return self.settings() | {"listing": self.listing.stamp}

    def settings(self) -> dict[str, Json]:
        cut: dict[str, Json] = {"vad": asdict(self.cut)} if self.cut else {}
        return {"corpus": hashed(self.config), **cut}

    def inputs(self) -> Mapping[str, Artifact]:
        return {}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        for note in self.listing.notes:
            context.reporter.line(f"{self.label}: {note}")
        tasks = plan_parts(self.listing, self.config.part_audio_s)
        receipts = map_parts(
            context,
            out,
            context.tags(self),
            tasks,
            _Decoder,
            _DecoderArgument(self.source, context.store, self.key, self.config, self.cut),
            context.settings.ingest,
            outputs=lambda name: [name],
        )
        names = [task.name for task in tasks]
        # The payloads list the corpus a second time.
        del tasks
        undecodable = sorted((p for r in receipts for p in r.problems), key=lambda p: p.item)
        stored = _stored(out, names)
        same = same_samples(stored, (u.audio_sha256 for u in stored))
        problems = [*self.listing.problems, *undecodable, *same.problems(stored)]
        num_bad = self.listing.num_bad + len(undecodable) + len(same.contradictions)
        num_listed = self.listing.num_listed
        limit = self.config.max_bad_fraction
        try:
            refuse_too_many_bad(self.source.uri, num_bad, num_listed, limit, problems)
            utterances = self._index(out, [stored[i] for i in same.kept(stored)], problems)
        except CorpusError:
            _forget_bad(out, receipts)
            raise
        if self.cut is None:
            put_audio_paths(out, self.listing.utterances)
        if problems:
            where = f"{context.store.uri}/{out.key.manifest_path}"
            context.reporter.line(
                f"{self.label}: {num_bad} of {num_listed} utterances are bad and were left out; all "
                f"are listed in the report and in {where}: {_first_of(problems)}"
            )
        if copies := same.copies_line():
            context.reporter.warning(f"{self.label}: {copies}")
        notes = {"emotions": json.dumps(self.listing.emotions)}
        if self.config.channel != DEFAULT_CHANNEL:
            notes["channel"] = self.config.channel
        return Seal(_identity(utterances, self.listing.emotions), problems, notes)

    def _index(
        self, out: ArtifactWriter, utterances: list[StoredUtterance], problems: list[Problem]
    ) -> list[StoredUtterance]:
        """One small table of all utterances, for everything that needs no audio.

        It is what the corpus is: rows of the parts that it does not name are never used.
        """
        if not utterances:
            raise CorpusError.of_all(
                "no utterance of the corpus can be used; repair the recordings:",
                list(map(str, problems)),
            )
        lost = set(self.listing.emotions) - {u.emotion for u in utterances}
        if lost:
            raise CorpusError.of_all(
                f"no utterance of {', '.join(sorted(lost))} is left; repair the recordings, or remove "
                f"the class from corpus.emotions:",
                list(map(str, problems)),
            )
        out.put_part(INDEX_PART, utterances_to_table(utterances))
        return utterances


def _stored(out: ArtifactWriter, names: list[str]) -> list[StoredUtterance]:
    """The utterances of all parts, in utterance-id order."""
    parts = out.written()
    utterances = [u for name in names for u in read_part_utterances(parts, name)]
    return sorted(utterances, key=lambda u: u.utterance_id)


def plan_parts(listing: CorpusListing, part_audio_s: float) -> list[Task]:
    """Tasks of about ``part_audio_s`` of audio each, by the sizes of files or segments."""
    budget_bytes = part_audio_s * _BYTES_A_SECOND
    tasks: list[Task] = []
    members: list[Utterance] = []
    held_bytes = 0.0

    def close() -> None:
        # Not asdict, which copies every value; a corpus may have a million utterances.
        payload = json.dumps([{name: getattr(u, name) for name in _FIELDS} for u in members])
        tasks.append(Task(f"part-{len(tasks):05d}", payload))

    for utterance in in_reading_order(listing.utterances):
        members.append(utterance)
        held_bytes += _expected_bytes(utterance, listing.sizes[utterance.path])
        if held_bytes >= budget_bytes:
            close()
            members, held_bytes = [], 0.0
    if members:
        close()
    return tasks


def _expected_bytes(utterance: Utterance, file_bytes: int) -> float:
    if utterance.start_s is None or utterance.end_s is None:
        return file_bytes
    return (utterance.end_s - utterance.start_s) * _BYTES_A_SECOND


def _forget_bad(out: ArtifactWriter, receipts: list[Receipt]) -> None:
    """Remove the receipts of parts with bad recordings, so that the next run reads these parts again.

    A repaired recording changes the fingerprint. A recording that is back, for example because a disk
    was mounted again, does not.
    """
    for receipt in receipts:
        if receipt.problems:
            out.store.delete(f"{out.key.prefix}/receipts/{receipt.name}.json")


def _first_of(problems: list[Problem]) -> str:
    shown = "; ".join(str(p) for p in problems[:_SHOWN_BAD])
    more = "; ..." if len(problems) > _SHOWN_BAD else ""
    return " ".join(f"{shown}{more}".split())


def _identity(utterances: list[StoredUtterance], emotions: tuple[str, ...]) -> str:
    """``digest`` of emotions and utterances, without the text of the whole in memory."""
    sha256 = hashlib.sha256()
    sha256.update(f'{{"emotions":{canonical_json(list(emotions))},"utterances":['.encode())
    for start in range(0, len(utterances), _ROWS_AT_ONCE):
        rows: list[Json] = [
            [
                *(u.utterance_id, u.speaker, u.gender, u.emotion),
                *(u.session, u.split, u.num_samples, u.audio_sha256),
                *(u.part, u.row),
            ]
            for u in utterances[start : start + _ROWS_AT_ONCE]
        ]
        text = canonical_json(rows)[1:-1]
        sha256.update(f"{',' if start else ''}{text}".encode("ascii"))
    sha256.update(b"]}")
    return sha256.hexdigest()


@dataclass(frozen=True)
class _DecoderArgument:
    source: Store
    store: Store
    key: ArtifactKey
    config: CorpusConfig
    cut: SpeechCut | None = None


class _Decoder:
    """Decodes one part. A bad recording is left out; the rest of the part is stored.

    A recording is bad when its own bytes are at fault, or when the file is missing. A store that cannot
    be read is an error that stops the run; the next run resumes after the finished parts.
    """

    def __init__(self, argument: _DecoderArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        config = argument.config
        if argument.cut is not None:
            config = config.model_copy(update={"max_s": LONGEST_S})
        self._recordings = Recordings(argument.source, config)

    def __call__(self, task: Task) -> str:
        return self.compute(task)()

    def compute(self, task: Task) -> Callable[[], str]:
        decoded: list[_Decoded] = []
        problems: list[Problem] = []
        utterances = [Utterance(**values) for values in json.loads(task.payload)]
        with self._recordings.ahead(utterances):
            for utterance in utterances:
                try:
                    decoded += [_Decoded.of(one, found) for one, found in self._read(utterance)]
                except CANNOT_BE_USED as e:
                    problems.append(problem_of(utterance, e))
        if self._argument.cut is not None:
            # Ids of segments may sort in another way than those of their recordings.
            decoded.sort(key=lambda one: one.utterance.utterance_id)
        ids = [one.utterance.utterance_id for one in decoded]
        measured = AudioTable.of(ids, [one.measures for one in decoded])
        audio_s = sum(len(one.pcm16) for one in decoded) / SAMPLE_RATE_HZ
        return partial(
            self._put, task.name, _table(task.name, decoded), measured, audio_s, problems
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
class _Decoded:
    """An utterance, its samples (N,), and what is computed from them."""

    utterance: Utterance
    pcm16: npt.NDArray[np.int16]
    audio_sha256: str
    measures: dict[str, float]

    @classmethod
    def of(cls, utterance: Utterance, recording: Recording) -> _Decoded:
        # At once, while the samples are in the cache of the core.
        pcm16 = recording.pcm16
        return cls(utterance, pcm16, pcm16_sha256(pcm16), measures_of(pcm16, recording.header))


def _table(part: str, decoded: list[_Decoded]) -> pa.Table:
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
