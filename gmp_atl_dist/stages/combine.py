"""Stage ``combine``: one corpus out of several sources that were ingested on their own.

It holds the index of all utterances and no audio: see ``store/sources.py``. Here the sources meet for the
first time, so here a recording that is in two of them is found, by the sha256 of its samples. Folds hold out
speakers, and the same recording has two speakers in two sources. So it could be trained on and tested on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gmp_atl_dist.audio import DEFAULT_CHANNEL
from gmp_atl_dist.config import NOBODY, Json, SourceConfig
from gmp_atl_dist.corpora.sources import refuse_empty_classes, refuse_shared_names
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import UTTERANCE_SCHEMA, Problem
from gmp_atl_dist.stages.base import Context, Seal, Stage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import INDEX_PART, read_channel
from gmp_atl_dist.store.sources import SOURCES_NOTE, LinkedSource, sources_note
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.wording import counted


@dataclass(frozen=True)
class Combine(Stage):
    """The index of all sources, checked for recordings that two of them share."""

    emotions: tuple[str, ...]
    sources: tuple[SourceConfig, ...]
    corpora: tuple[Artifact, ...]
    """The ``ingest`` artefact of each source."""

    kind: ClassVar[str] = "combine"
    # The folds are planned from what it holds, so nothing behind it is known before it has run.
    identity_is_fingerprint: ClassVar[bool] = False

    def science(self) -> dict[str, Json]:
        """Not the language and the licence, which change no byte here."""
        sources: list[Json] = [
            [s.name, s.role, s.weight] if s.weight != 1 else [s.name, s.role] for s in self.sources
        ]
        shared: dict[str, Json] = {s.name: s.speakers_of for s in self.sources if s.speakers_of}
        science: dict[str, Json] = {"emotions": list(self.emotions), "sources": sources}
        return science | ({"speakers_of": shared} if shared else {})

    def inputs(self) -> Mapping[str, Artifact]:
        return {s.name: corpus for s, corpus in zip(self.sources, self.corpora, strict=True)}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        linked = tuple(
            LinkedSource(
                s.name,
                s.is_labelled,
                c.key.fingerprint,
                c.identity,
                s.weight,
                c.kind,
                "" if s.speakers_of == NOBODY else s.speakers_of,
            )
            for s, c in zip(self.sources, self.corpora, strict=True)
        )
        tables = [
            source.table(corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA))
            for source, corpus in zip(linked, self.corpora, strict=True)
        ]
        refuse_shared_recordings(linked, tables)
        refuse_shared_names(
            self.sources,
            {
                source.name: corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA, ["speaker"])["speaker"]
                .unique()
                .to_pylist()
                for source, corpus in zip(linked, self.corpora, strict=True)
            },
        )
        refuse_empty_classes(
            self.emotions,
            (t["emotion"].unique().to_pylist() for t in tables),
        )
        # Each is sorted by id, and ids begin with the source. So no copy is sorted.
        order = sorted(range(len(tables)), key=lambda i: linked[i].item("-"))
        out.put_part(INDEX_PART, pa.concat_tables([tables[i] for i in order]))
        for source, table in zip(linked, tables, strict=True):
            role = "labelled" if source.labelled else "unlabelled"
            context.reporter.line(
                f"{self.label}: {source.name}: {counted(table.num_rows, f'{role} utterance')} of "
                f"{counted(len(table['speaker'].unique()), 'speaker')}"
            )
        problems = [
            Problem(source.item(p.item), p.reason)
            for source, corpus in zip(linked, self.corpora, strict=True)
            for p in corpus.manifest.problems
        ]
        notes = {"emotions": json.dumps(self.emotions), SOURCES_NOTE: sources_note(linked)}
        channels = {read_channel(corpus) for corpus in self.corpora}
        if len(channels) == 1 and channels != {DEFAULT_CHANNEL}:
            notes["channel"] = channels.pop()
        return Seal(problems=problems, notes=notes)


def refuse_shared_recordings(sources: Sequence[LinkedSource], tables: Sequence[pa.Table]) -> None:
    """Refuse a recording that is in a labelled source and in any other source.

    In two unlabelled sources it does no harm: neither is tested on.

    Args:
        tables: the utterances of each source, with ids as the corpus has them.

    Raises:
        CorpusError: names both ids of each such recording.
    """
    seen: pa.Table | None = None
    problems: list[str] = []
    # Labelled sources first, so that every other source is compared with all of them.
    order = sorted(range(len(sources)), key=lambda i: not sources[i].labelled)
    for i in order:
        own = tables[i].select(["audio_sha256", "utterance_id"])
        if seen is not None:
            sha256 = pc.field("audio_sha256")
            shared = own.filter(sha256.isin(seen["audio_sha256"].combine_chunks()))
            known = seen.filter(sha256.isin(shared["audio_sha256"].combine_chunks()))
            first: dict[str, str] = {}
            for row in known.to_pylist():
                first.setdefault(row["audio_sha256"], row["utterance_id"])
            problems += [
                f"{row['utterance_id']!r} is the same recording as {first[row['audio_sha256']]!r} "
                f"(sha256 of the samples {row['audio_sha256'][:12]})"
                for row in shared.to_pylist()
            ]
        if sources[i].labelled:
            seen = own if seen is None else pa.concat_tables([seen, own])
    if problems:
        raise CorpusError.of_all(
            f"{len(problems)} recordings are in a labelled source and in another source as well, so "
            f"speech that is tested on could be trained on; remove each from one of the two:",
            problems,
        )
