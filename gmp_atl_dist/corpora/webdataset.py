"""WebDataset: tar shards in which files with the same key are one sample.

Layout: any number of ``*.tar`` files. The key of a member is its path up to the first dot of its name. A
sample is one recording (``utt1.flac``) and one JSON file (``utt1.json``) with its labels. Members of one
sample stand together. Nothing is extracted: an utterance's path is a range of bytes in its shard, and workers
read these ranges, neighbours with one request.

Fields of the JSON: id, speaker, emotion, gender, session, split, start_s, end_s. ``corpus.columns`` maps
other names, with dots for nested ones: ``columns = { emotion = "labels.emotion" }``. ``speaker`` and
``emotion`` are needed. Without an ``id``, the id is the key. Without a ``split``, the split is that of the
shard's name or folder (train, valid, test), if it has one. Members with other suffixes (``txt``, ``cls``) are
not read.

Known faults:
  - A shard that is cut short ends the reading of many programs without a word. Here it is an error.
  - Compressed shards (``.tar.gz``) have no ranges; unpack them to ``.tar``.
  - Links and other special members are named problems; they are never followed.
  - Listing reads the headers and the JSON of every shard. On S3, recordings of more than 1 MiB are left out.
    Shorter ones are read with their neighbours in blocks of up to 8 MiB, because each request takes time.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.addresses import TAR, Address
from gmp_atl_dist.corpora.audio_files import BLOCK_BYTES
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
from gmp_atl_dist.corpora.read_ahead import ReadAhead
from gmp_atl_dist.corpora.video import VIDEO_SUFFIXES
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_SHARDS_AT_ONCE = 8
_LOCAL_BLOCK_BYTES = 1 << 16


@dataclass
class _Sample:
    """What a shard has under one key."""

    audio: list[tarfile.TarInfo] = field(default_factory=list)
    labels: bytes | None = None


@dataclass(frozen=True)
class WebDataset:
    """Adapter of tar shards."""

    name: ClassVar[str] = "webdataset"
    default_emotions: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[Card] = Card(
        title="",
        languages="any",
        speakers="any",
        utterances="any",
        licence="that of the corpus",
        example="train-000000.tar",
        summary="tar shards of WebDataset, with audio and JSON per sample",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All samples of all shards. A problem names each other sample by its shard and key.

        Raises:
            ConfigError: ``corpus.columns`` is not valid.
            CorpusError: there is no shard, or one is missing, damaged or cut short.
        """
        shards, problems = find_recordings(source, (TAR,))
        if not shards:
            raise CorpusError(
                f"{source.uri}: holds no .tar file; set runtime.corpus to the folder with the shards, and "
                f"unpack compressed ones"
            )
        check_complete(source.uri, shards, config.allow_incomplete)
        columns = columns_of(config, LABELS, {})
        utterances: list[Utterance] = []
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            for found, bad in pool.map(lambda path: _shard(source, path, columns), shards):
                utterances += found
                problems += bad
        return utterances, problems


def _shard(source: Store, path: str, columns: Mapping[str, str]) -> Listed:
    problems: list[Problem] = []
    samples = _samples(source, path, problems)
    utterances: list[Utterance] = []
    for key, sample in samples.items():
        made = _utterance(path, key, sample, columns, split_of_path(path))
        if isinstance(made, Utterance):
            utterances.append(made)
        else:
            problems.extend(Problem(f"{path}: sample {key!r}", reason) for reason in made)
    return utterances, problems


def _samples(source: Store, path: str, problems: list[Problem]) -> dict[str, _Sample]:
    """The samples of a shard by key, in order.

    Raises:
        CorpusError: it is no tar file, is damaged or ends before its end mark.
    """
    samples: dict[str, _Sample] = {}
    block = BLOCK_BYTES if source.is_remote else _LOCAL_BLOCK_BYTES
    try:
        shard = ReadAhead(source.open_input(path), block)
        with tarfile.open(fileobj=shard, mode="r:") as tar:
            end = 0
            for member in tar:
                end = member.offset_data + (-(-member.size // 512) * 512 if member.isreg() else 0)
                _add_member(tar, member, path, samples, problems)
            shard.seek(end)
            mark = shard.read(512)
    except (tarfile.TarError, OSError, EOFError) as e:
        raise CorpusError(
            f"{source.uri}/{path}: is no whole tar file ({e}); write the shard again"
        ) from e
    # tarfile ends at a damaged or missing header without an error.
    if mark != bytes(512):
        raise CorpusError(
            f"{source.uri}/{path}: is damaged or cut short after {len(samples)} samples, at byte {end}; "
            f"copy the shard again"
        )
    return samples


def _add_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: str,
    samples: dict[str, _Sample],
    problems: list[Problem],
) -> None:
    folder, slash, name = member.name.removeprefix("./").rpartition("/")
    if member.isdir() or name.startswith("."):
        return
    if not member.isreg() or member.issparse():
        problems.append(Problem(f"{path}: {member.name!r}", "is no plain file; write it as one"))
        return
    stem, _, suffix = name.partition(".")
    suffix = "." + suffix.lower().rpartition(".")[2]
    sample = samples.setdefault(f"{folder}{slash}{stem}", _Sample())
    if suffix in AUDIO_SUFFIXES or suffix in VIDEO_SUFFIXES:
        sample.audio.append(member)
    elif suffix == ".json":
        stream = tar.extractfile(member)
        sample.labels = stream.read() if stream else None


def _utterance(
    path: str, key: str, sample: _Sample, columns: Mapping[str, str], split: str
) -> Utterance | list[str]:
    if len(sample.audio) != 1:
        names = ", ".join(member.name for member in sample.audio) or "none"
        return [f"must have one recording, and has {names}; write the shard again"]
    if sample.labels is None:
        return ["has no .json with its labels; write the shard again"]
    try:
        record = json.loads(sample.labels)
    except ValueError as e:
        return [f"its .json cannot be read ({e}); write the shard again"]
    member = sample.audio[0]
    values = {ours: field_text(record, theirs) for ours, theirs in columns.items()}
    address = Address(path, member.name, member.offset_data, member.size)
    return make_utterance(values, str(address), key, split)
