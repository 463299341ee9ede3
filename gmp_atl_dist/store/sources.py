"""A corpus of several sources: an index of its own, and the audio parts of other artefacts.

``combine`` seals an artefact that holds the index alone. Its manifest names the ``ingest`` artefact of each
source. A part ``SOURCE.PART`` of the corpus is part ``PART`` of that artefact, and ids, speakers and
sessions in it get the name of the source. So no audio is copied, and whoever reads audio through
``readers.py`` need not know that there are several sources.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache, cached

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import qualified
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.manifest import ArtifactKey

SOURCES_NOTE = "sources"
_QUALIFIED = ("utterance_id", "speaker", "session")
_LINKS = 64


@dataclass(frozen=True)
class LinkedSource:
    """One source of a corpus: its name and role, and the artefact that holds its audio."""

    name: str
    labelled: bool
    fingerprint: str
    identity: str
    weight: float = 1.0
    kind: str = "ingest"
    speakers_of: str = ""
    """A labelled source in which the same names are the same people; empty if there is none."""

    def table(self, table: pa.Table) -> pa.Table:
        """Rows of the source's artefact as the corpus has them; any columns of ``AUDIO_SCHEMA``."""
        for name in table.column_names:
            column = table[name]
            if name in _QUALIFIED:
                named = _begun_with(f"{self.name}/", column)
                # What has no session has none in the corpus either.
                is_empty = pc.call_function("equal", [column, pa.scalar("")])
                column = pc.call_function("if_else", [is_empty, pa.scalar(""), named])
            elif name == "part":
                column = _begun_with(f"{self.name}.", column)
            elif name == "emotion" and not self.labelled:
                column = pa.chunked_array([pa.array([""] * table.num_rows, pa.string())])
            else:
                continue
            number = table.column_names.index(name)
            table = table.set_column(number, table.field(number), column.cast(pa.string()))
        return table

    def twin(self, speaker: str) -> str:
        """The same person in the labelled source that has them; empty if no source has."""
        if not self.speakers_of:
            return ""
        return qualified(self.speakers_of, speaker.removeprefix(f"{self.name}/"))

    def item(self, item: str) -> str:
        """What the corpus calls an item of the source."""
        return qualified(self.name, item)


def _begun_with(prefix: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("binary_join_element_wise", [pa.scalar(prefix), column, pa.scalar("")])


def sources_note(sources: tuple[LinkedSource, ...]) -> str:
    """The note of a manifest that names the sources."""
    return json.dumps([asdict(source) for source in sources])


def read_sources(corpus: Artifact) -> tuple[LinkedSource, ...]:
    """The sources of a corpus; none if it is of one ``ingest`` alone."""
    note = corpus.manifest.notes.get(SOURCES_NOTE)
    return () if note is None else tuple(LinkedSource(**values) for values in json.loads(note))


def part_names(corpus: Artifact, index_part: str) -> tuple[str, ...]:
    """The audio parts of a corpus, those of its sources included."""
    sources = read_sources(corpus)
    if not sources:
        return tuple(name for name in corpus.part_names if name != index_part)
    return tuple(
        f"{source.name}.{name}"
        for source in sources
        for name in part_names(_linked(corpus, source.name)[1], index_part)
    )


def locate(corpus: Artifact, part: str) -> tuple[LinkedSource | None, Artifact, str]:
    """The artefact that holds an audio part, and the part's name in it; the source, if it is of one.

    Raises:
        ArtifactError: the corpus has no such source, or its artefact is gone.
    """
    if SOURCES_NOTE not in corpus.manifest.notes:
        return None, corpus, part
    name, _, own = part.partition(".")
    source, artifact = _linked(corpus, name)
    return source, artifact, own


def _linked_key(corpus: Artifact, name: str) -> tuple[str, str, str]:
    # The fingerprint, because two corpora of equal content may link to different artefacts.
    return corpus.store.uri, corpus.key.fingerprint, name


@cached(LRUCache(_LINKS), key=_linked_key, lock=Lock())
def _linked(corpus: Artifact, name: str) -> tuple[LinkedSource, Artifact]:
    source = next((s for s in read_sources(corpus) if s.name == name), None)
    if source is None:
        raise ArtifactError(f"{corpus.key.prefix} has no source {name!r}; run gmp-atl verify")
    key = ArtifactKey(source.kind, source.fingerprint)
    artifact = find_artifact(corpus.store, key)
    if artifact is None or artifact.identity != source.identity:
        state = "is gone" if artifact is None else "has other content"
        raise ArtifactError(
            f"{corpus.store.uri}/{key.prefix}, the audio of source {name}, {state}; delete "
            f"{corpus.key.prefix} and run again"
        )
    return source, artifact
