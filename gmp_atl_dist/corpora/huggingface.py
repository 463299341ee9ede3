"""Datasets in the layout of Hugging Face ``datasets``: Parquet shards with the bytes of the audio.

Layout: any number of ``*.parquet`` files, such as ``data/train-00000-of-00005.parquet``. Each row has audio,
a struct of ``bytes`` and ``path`` or plain bytes, and labels. ``runtime.corpus`` is the place that
holds them: a dataset of the hub by name (``hf://datasets/OWNER/NAME@REVISION``), a folder such as a snapshot
(``hf download --repo-type dataset``, also inside the cache of the hub), or a copy in object storage. Of the
hub, the commit that the revision means at the start is read to the end; ``@~parquet`` is the branch that the
hub converts itself. The package ``datasets`` is not needed, no code of a dataset is executed, and
nothing is extracted: workers read the audio column of the rows of their part.

Columns: audio, id, speaker, emotion, gender, session, split, start_s, end_s. ``corpus.columns`` maps other
names, as in ``columns = { emotion = "label", speaker = "speaker_id" }``. ``audio``, ``speaker`` and
``emotion`` are needed. A class label that is stored as a number gets its name from the file's own metadata.
Without a column ``id``, the id is the path of the shard and the row. Without a column ``split``, the split is
that of the file's name or folder (train, validation, test), if it has one.

Known faults:
  - A dataset that only refers to audio files by ``path`` is read from these files, which must lie below
    ``runtime.corpus``. An audio file that no row refers to is a named problem.
  - Published splits often share speakers. Look at ``gmp-atl corpora check``.
  - Rows of one speaker per row group read fastest; very large row groups cost memory while they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.addresses import PARQUET, Address
from gmp_atl_dist.corpora.audio_files import open_parquet
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.fields import (
    LABELS,
    columns_of,
    field_text,
    make_utterance,
    split_of_path,
)
from gmp_atl_dist.corpora.file_names import AUDIO_SUFFIXES, find_recordings
from gmp_atl_dist.corpora.numbered_shards import check_complete
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_NEEDED = ("audio", "speaker", "emotion")
_SHARDS_AT_ONCE = 8
_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class HuggingFace:
    """Adapter of Parquet shards with audio."""

    name: ClassVar[str] = "huggingface"
    default_emotions: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[Card] = Card(
        title="",
        languages="any",
        speakers="any",
        utterances="any",
        licence="that of the corpus",
        example="data/train-00000-of-00005.parquet",
        summary="Parquet shards of Hugging Face datasets, with the audio inside",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All rows of all shards. A problem names each other row by its shard and number.

        Raises:
            ConfigError: columns are missing.
            CorpusError: there is no shard, or one is missing or damaged.
        """
        files, problems = find_recordings(source, (PARQUET, *AUDIO_SUFFIXES))
        shards = [path for path in files if path.endswith(PARQUET)]
        if not shards:
            raise CorpusError(
                f"{source.uri}: holds no Parquet file; set runtime.corpus to the folder with the shards"
            )
        check_complete(source.uri, shards, config.allow_incomplete)
        columns = columns_of(config, ("audio", *LABELS), {})
        utterances: list[Utterance] = []
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            for found, bad in pool.map(lambda path: _shard(source, path, columns), shards):
                utterances += found
                problems += bad
        used = {u.path for u in utterances}
        problems += [
            Problem(path, "is in no row; move it away")
            for path in files
            if not path.endswith(PARQUET) and path not in used
        ]
        return utterances, problems


def _shard(source: Store, path: str, columns: Mapping[str, str]) -> Listed:
    """The rows of one shard; its audio is not read."""
    try:
        file = open_parquet(source, path)
        present = file.schema_arrow
        audio = _audio_column(present, columns["audio"], path)
        labels = {ours: theirs for ours, theirs in columns.items() if ours != "audio"}
        has = {ours: theirs for ours, theirs in labels.items() if _top(theirs) in present.names}
        lacks = [columns[ours] for ours in _NEEDED[1:] if ours not in has]
        if lacks:
            raise ConfigError(
                f"{path}: lacks the columns {', '.join(lacks)}; it has {', '.join(present.names)}. Map "
                f"them with corpus.columns"
            )
        names = _class_names(present)
        embedded = _is_embedded(file, audio)
        beside = audio.removesuffix("bytes") + "path"
        wanted = [*has.values(), *([] if embedded else [beside])]
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        sizes = _sizes(file, audio)
        for row, record in enumerate(_records(file, wanted)):
            values = {
                ours: _named(names.get(theirs), field_text(record, theirs))
                for ours, theirs in has.items()
            }
            where = str(Address(path, audio, row, next(sizes)))
            if not embedded:
                where = field_text(record, beside)
            row_id = f"{path.removesuffix(PARQUET)}-{row:06d}"
            made = make_utterance(values, where, row_id, split_of_path(path))
            if isinstance(made, Utterance):
                utterances.append(made)
            else:
                item = f"{path}: row {row} (id {values.get('id') or row_id!r})"
                problems.extend(Problem(item, reason) for reason in made)
        return utterances, problems
    except (OSError, pa.ArrowException) as e:
        raise CorpusError(f"{source.uri}/{path}: cannot be read ({e}); copy the shard again") from e


def _audio_column(schema: pa.Schema, name: str, path: str) -> str:
    """The dotted name of the column of bytes."""
    kind = schema.field(name).type if name in schema.names else None
    if kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{name}.bytes"
    if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return name
    raise ConfigError(
        f"{path}: the column {name!r} {'is missing' if kind is None else f'has type {kind}'}; name the "
        f"column with the bytes of the audio in corpus.columns.audio. It has "
        f"{', '.join(f'{field.name} ({field.type})' for field in schema)}"
    )


def _is_embedded(file: pq.ParquetFile, audio: str) -> bool:
    """Whether there are bytes at all; otherwise rows refer to audio files by their paths."""
    for group, column in _chunks(file, audio):
        statistics = column.statistics
        if statistics is None or statistics.null_count != group.num_rows:
            return True
    return file.metadata.num_rows == 0


def _sizes(file: pq.ParquetFile, audio: str) -> Iterator[int]:
    """The mean size of a recording of its row group, for each row."""
    for group, column in _chunks(file, audio):
        mean = max(1, column.total_uncompressed_size // max(1, group.num_rows))
        yield from (mean for _ in range(group.num_rows))


def _chunks(
    file: pq.ParquetFile, name: str
) -> Iterator[tuple[pq.RowGroupMetaData, pq.ColumnChunkMetaData]]:
    for i in range(file.num_row_groups):
        group = file.metadata.row_group(i)
        for j in range(group.num_columns):
            if group.column(j).path_in_schema == name:
                yield group, group.column(j)


def _records(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns))):
        yield from batch.to_pylist()


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of class labels by column, from the metadata that ``datasets`` writes."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _named(names: Sequence[str] | None, text: str) -> str:
    """The name of a class label; "" for -1, which means that there is none."""
    if names is None or not text.lstrip("-").isdecimal():
        return text
    number = int(text)
    return names[number] if 0 <= number < len(names) else ""


def _top(name: str) -> str:
    return name.partition(".")[0]
