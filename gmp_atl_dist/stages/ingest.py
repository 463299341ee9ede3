"""Stage ``ingest``: recordings to 16 kHz mono samples in the store, checked once.

Parts are planned from the sizes of the files. The fingerprint follows the files' sizes and times, so a
corpus that changed is read again. The identity follows the samples and labels, so a corpus that was only
moved changes nothing downstream. Beside each part lies a small file with measures of its audio, which the
report shows and no other stage reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import ClassVar

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import CorpusConfig, Json, canonical_json, hashed
from gmp_atl_dist.corpora.addresses import in_reading_order
from gmp_atl_dist.corpora.checks import refuse_too_many_bad
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.same_audio import same_samples
from gmp_atl_dist.corpora.vad import SpeechCut
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import (
    DEFAULT_CHANNEL,
    Problem,
    StoredUtterance,
    Utterance,
    utterances_to_table,
)
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Seal, Stage
from gmp_atl_dist.stages.ingest_worker import PartDecoder, PartDecoderArgument
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.audio_paths import put_audio_paths
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import Receipt
from gmp_atl_dist.store.readers import INDEX_PART, read_part_utterances
from gmp_atl_dist.store.writer import ArtifactWriter

_BYTES_A_SECOND = SAMPLE_RATE_HZ * 2
_FIELDS = tuple(field.name for field in fields(Utterance))
_ROWS_AT_ONCE = 1 << 12
_READ_THREADS = 16
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
            PartDecoder,
            PartDecoderArgument(self.source, context.store, self.key, self.config, self.cut),
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
    # Each part takes several requests to object storage, one after the other.
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        read = pool.map(lambda name: read_part_utterances(parts, name), names)
        utterances = [u for of_part in read for u in of_part]
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
