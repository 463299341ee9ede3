"""Which adapter reads a folder that has no usable table: a known release, or shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.addresses import PARQUET, TAR
from gmp_atl_dist.corpora.audio_files import open_parquet
from gmp_atl_dist.corpora.base import find_adapter
from gmp_atl_dist.corpora.cards import all_cards
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Entry, Store

_OF_IEMOCAP = ("iemocap", "synthetic")
"""Adapters of a layout that is looked for by its folders."""
_SMALLEST_SHARE = 0.9
"""Of the items that an adapter must be able to read. Fewer mean another corpus with some like names."""
_MANIFESTS = (".jsonl", ".jsonl.gz")


class _ListedOnce(Store):
    """A corpus whose files are listed already, because several adapters will look at it."""

    def __init__(self, uri: str, entries: Sequence[Entry]) -> None:
        super().__init__(uri)
        self._entries = entries

    def list(self, prefix: str = "") -> list[Entry]:
        return super().list(prefix) if prefix else [*self._entries]


def find_release(source: Store, entries: Sequence[Entry]) -> CorpusConfig | None:
    """The adapter of the one known corpus whose release this is; None if there is none."""
    listed = _ListedOnce(source.uri, entries)
    fitting: list[CorpusConfig] = []
    for known in all_cards():
        if known.card is None or not known.card.title or known.name in _OF_IEMOCAP:
            continue
        config = CorpusConfig(adapter=known.name)
        try:
            utterances, problems = find_adapter(known.name).list(listed, config)
        except (ConfigError, CorpusError):
            continue  # its tables or recordings are not here
        num_bad = len({problem.item for problem in problems})
        if utterances and len(utterances) >= _SMALLEST_SHARE * (len(utterances) + num_bad):
            fitting.append(config)
    return fitting[0] if len(fitting) == 1 else None


def find_shards(
    source: Store, entries: Sequence[Entry], spellings: Mapping[str, Sequence[str]]
) -> CorpusConfig | None:
    """The adapter of shards or manifests, with its columns; None if there are none.

    Args:
        source: the folder.
        entries: its files.
        spellings: our column -> names that it often has, in lower case.
    """
    paths = [entry.path for entry in entries]
    parquet = next((path for path in paths if path.endswith(PARQUET)), None)
    schema = open_parquet(source, parquet).schema_arrow if parquet else None
    audio = _audio_of(schema) if schema is not None else None
    if schema is not None and audio is not None:
        lower = {name.lower(): name for name in reversed(schema.names)}
        columns = {"audio": audio}
        for ours, others in spellings.items():
            theirs = next((lower[name] for name in (ours, *others) if name in lower), None)
            if theirs not in (None, audio) and ours != "path":
                columns[ours] = theirs
        renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
        return CorpusConfig(adapter="huggingface", columns=renamed)
    if any(path.endswith(TAR) for path in paths):
        return CorpusConfig(adapter="webdataset")
    names = [path.rpartition("/")[2] for path in paths if path.endswith(_MANIFESTS)]
    if any("cuts" in name or "supervisions" in name for name in names):
        return CorpusConfig(adapter="lhotse")
    return None


def _audio_of(schema: pa.Schema) -> str | None:
    """The column with the bytes of audio."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return field.name
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return field.name
    return None
