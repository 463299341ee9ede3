"""Typed views of artefacts: utterances, audio, learning curves.

Every part is read here, or by ``features.py``, ``codebooks.py``, ``labels.py``, ``index.py`` and
``frontend.py`` beside it. So the layout of a part is known in one place besides the stage that writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache, cached

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import (
    AUDIO_SCHEMA,
    CURVE_SCHEMA,
    DEFAULT_CHANNEL,
    UTTERANCE_SCHEMA,
    Channel,
    StoredUtterance,
    utterances_from_table,
)
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.cache import LoadingCache
from gmp_atl_dist.store.checked import SHORT, damaged
from gmp_atl_dist.store.manifest import part_path
from gmp_atl_dist.store.sources import locate, part_names

INDEX_PART = "utterances"
_CHECKED_COLUMNS = ("utterance_id", "pcm16", "audio_sha256")
_AUDIO_CACHE_BYTES = 512 << 20
_UTTERANCE_LISTS = 4
_READ_THREADS = 16


def artifact_id(artifact: Artifact) -> tuple[str, str]:
    """The key of an artefact in a cache: a sealed artefact never changes."""
    return artifact.store.uri, artifact.identity


@cached(LRUCache(_UTTERANCE_LISTS), key=artifact_id, lock=Lock())
def read_utterances(corpus: Artifact) -> tuple[StoredUtterance, ...]:
    """Every utterance of an ``ingest`` artefact, in utterance-id order."""
    return utterances_from_table(corpus.read_part(INDEX_PART, UTTERANCE_SCHEMA))


def read_emotions(corpus: Artifact) -> tuple[str, ...]:
    """The fixed class list of an ``ingest`` artefact, in order."""
    return tuple(json.loads(corpus.manifest.notes["emotions"]))


def read_channel(corpus: Artifact) -> Channel:
    """What an ``ingest`` artefact holds of recordings with several channels (``corpus.channel``)."""
    return cast("Channel", corpus.manifest.notes.get("channel", DEFAULT_CHANNEL))


def audio_part_names(corpus: Artifact) -> tuple[str, ...]:
    return part_names(corpus, INDEX_PART)


@dataclass(frozen=True)
class AudioPart:
    """One part of ``ingest`` in memory; samples are views of its buffer."""

    utterances: tuple[StoredUtterance, ...]
    pcm16: pa.BinaryArray

    def samples(self, row: int) -> np.ndarray:
        """int16 samples [num_samples] of the utterance in ``row``; read-only."""
        samples = np.frombuffer(self.pcm16[row].as_buffer(), dtype="<i2")
        # Arrow returns its own memory as writable, and other readers share it.
        samples.flags.writeable = False
        return samples


def read_audio_part(corpus: Artifact, name: str) -> AudioPart:
    table = _read_part(corpus, name)
    pcm16 = table["pcm16"].combine_chunks()
    if isinstance(pcm16, pa.ChunkedArray):
        pcm16 = pcm16.chunk(0)
    return AudioPart(utterances_from_table(table), pcm16)


def audio_measures_name(part: str) -> str:
    """The file of ``ingest`` with the measures of the utterances of an audio part."""
    return f"audio/{part}.json"


def read_audio_measures(corpus: Artifact) -> list[tuple[str, bytes]] | None:
    """The measures of each audio part as stored, and what the corpus puts before the ids in them.

    None where an earlier release made an artefact.
    """
    places = [locate(corpus, part) for part in audio_part_names(corpus)]
    files = [(source, held, audio_measures_name(own)) for source, held, own in places]
    if any(f"files/{name}" not in held.receipts for _, held, name in files):
        return None
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        stored = pool.map(lambda file: file[1].read_file(file[2]), files)
        return [
            ("" if source is None else f"{source.name}/", data)
            for (source, _, _), data in zip(files, stored, strict=True)
        ]


def read_part_utterances(corpus: Artifact, name: str) -> tuple[StoredUtterance, ...]:
    """The utterances of an audio part, in the order of its rows; samples are not read."""
    return utterances_from_table(_read_part(corpus, name, UTTERANCE_SCHEMA.names))


def _read_part(corpus: Artifact, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of an audio part, wherever it lies."""
    source, artifact, own = locate(corpus, name)
    table = artifact.read_part(own, AUDIO_SCHEMA, columns)
    return table if source is None else source.table(table)


def read_audio_rows(
    corpus: Artifact, name: str, start: int, stop: int, *, columns: Sequence[str]
) -> pa.Table:
    """Columns of rows ``start`` to ``stop`` of an audio part. Only their row groups are fetched.

    In object storage the samples of each row are compared with the digest in the row. On a disk, the whole
    part is hashed when this process opens it first.

    Raises:
        ArtifactError: the part cannot be read, is damaged, or has fewer rows.
    """
    source, artifact, own = locate(corpus, name)
    by_row = artifact.store.is_remote and "pcm16" in columns
    wanted = {*columns, *(_CHECKED_COLUMNS if by_row else ())}
    with artifact.open_part(own, AUDIO_SCHEMA, rows_are_checked=by_row) as part:
        groups, first = _row_groups(part.metadata, start, stop)
        table = part.read_row_groups(groups, columns=sorted(wanted))
    table = table.slice(start - first, stop - start)
    if by_row:
        _check_samples(artifact, own, table)
    table = table.select(list(columns))
    if table.num_rows != stop - start:
        raise ArtifactError(
            f"{artifact.store.uri}/{artifact.key.prefix}/{part_path(own)} has {table.num_rows} of rows "
            f"{start} to {stop}; run gmp-atl verify"
        )
    return table if source is None else source.table(table)


def _check_samples(artifact: Artifact, part: str, table: pa.Table) -> None:
    """Compare the samples of each row with the digest in it. Both are in the columns."""
    for row in range(table.num_rows):
        utterance_id, stated = (
            table[name][row].as_py() for name in ("utterance_id", "audio_sha256")
        )
        found = hashlib.sha256(table["pcm16"][row].as_buffer()).hexdigest()
        if found != stated:
            what = (
                f"the samples of utterance {utterance_id!r} have sha256 {found[:SHORT]}, its row states "
                f"{stated[:SHORT]}"
            )
            raise damaged(artifact.store.uri, artifact.key.prefix, part_path(part), what)


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows ``start`` to ``stop``, and the number of their first row."""
    groups: list[int] = []
    first, row = 0, 0
    for number in range(metadata.num_row_groups):
        end = row + metadata.row_group(number).num_rows
        if row < stop and end > start:
            first = first if groups else row
            groups.append(number)
        row = end
    return groups, first


class InPart(Protocol):
    """Where an utterance's audio lies: a StoredUtterance, or a row of the index."""

    @property
    def utterance_id(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def row(self) -> int: ...
    @property
    def num_samples(self) -> int: ...


class AudioReader:
    """Samples by utterance. The parts used last stay in memory, up to a budget."""

    def __init__(self, corpus: Artifact, cache_bytes: int = _AUDIO_CACHE_BYTES) -> None:
        self._parts: LoadingCache[str, AudioPart] = LoadingCache(
            lambda name: read_audio_part(corpus, name), cache_bytes, lambda part: part.pcm16.nbytes
        )

    def samples(self, utterance: InPart) -> np.ndarray:
        """int16 samples [num_samples]; read-only."""
        samples = self._parts[utterance.part].samples(utterance.row)
        if len(samples) != utterance.num_samples:
            raise ArtifactError(
                f"utterance {utterance.utterance_id!r} has {len(samples)} samples in part "
                f"{utterance.part!r}, expected {utterance.num_samples}; run gmp-atl verify"
            )
        return samples


def read_curves(artifact: Artifact) -> dict[str, list[tuple[int, float]]]:
    """Learning curves of a trained stage: (step, value) by metric."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in artifact.read_part("curves", CURVE_SCHEMA).to_pylist():
        curves.setdefault(row["name"], []).append((row["step"], row["value"]))
    return curves


def pcm16_sha256(pcm16: np.ndarray) -> str:
    """Digest of int16 samples, little-endian on every machine."""
    return hashlib.sha256(np.ascontiguousarray(pcm16, "<i2").data).hexdigest()
