"""What a folder or a table holds: the adapter that reads it, its columns, and what it says about speech."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.audio import read_header
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.audio_files import AudioBytes
from gmp_atl_dist.corpora.audio_paths import is_absolute
from gmp_atl_dist.corpora.delimited import column_names, find_delimiter
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.table import NEEDED, read_outside
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.starter.find_layout import find_release, find_shards
from gmp_atl_dist.store.filesystem import Entry, Store, UnreadableError, normalize_uri
from gmp_atl_dist.uris import uri_problem

_TABLES = (".csv", ".tsv", ".txt", ".parquet")
_AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")
_IEMOCAP = re.compile(r"Session\d/dialog/EmoEvaluation/[^/]+\.txt")
_MOST_HEADERS = 40
"""Recordings whose length is read. Their mean stands for the rest."""

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "id": ("utt_id", "utterance_id", "utterance", "utt", "file_id", "name", "key"),
    "path": (
        *("file", "filename", "file_name", "filepath", "file_path"),
        *("wav", "wav_path", "audio", "audio_path", "audio_file"),
    ),
    "speaker": ("speaker_id", "spk", "spk_id", "actor", "actor_id", "talker"),
    "emotion": ("label", "emotion_label", "emo", "class", "category"),
    "gender": ("sex",),
    "session": ("session_id",),
    "split": ("set", "subset", "partition"),
    "start_s": (),
    "end_s": (),
}
"""Names that our columns often have, in lower case."""


@dataclass(frozen=True)
class FoundCorpus:
    """A corpus, and what was found out about it.

    Attributes:
        folder: what ``runtime.corpus`` is to be.
        config: the section ``[corpus]`` that reads it.
        listing: its utterances.
        mean_s: mean length of an utterance in seconds, from some of them.
    """

    folder: str
    config: CorpusConfig
    listing: CorpusListing
    mean_s: float

    @property
    def total_s(self) -> float:
        return self.mean_s * len(self.listing.utterances)

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(sorted({u.speaker for u in self.listing.utterances}))


@dataclass(frozen=True)
class Hints:
    """What a person says of a corpus; all of it may be left out.

    Attributes:
        table: a table outside the corpus: an absolute path or a URI.
        columns: our column = the table's column, where its name does not tell.
        audio_root: where the corpus lay when the table was written; absolute paths begin with it.
    """

    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    audio_root: str = ""


_NO_HINTS = Hints()


def find_corpus(path: str, hints: Hints = _NO_HINTS) -> FoundCorpus:
    """Look at a folder, a table or a URI of either.

    Raises:
        ConfigError: there is nothing to read; says what was found and what is missing.
        CorpusError: labels or recordings cannot be used.
    """
    if problem := uri_problem(path):
        raise ConfigError(f"--corpus {path!r} {problem}")
    folder, _, last = path.rstrip("/").rpartition("/")
    name = last if PurePosixPath(last).suffix.lower() in _TABLES else ""
    folder = (folder or ".") if name else path
    source = Store.open(folder)
    entries = source.list()
    if not entries:
        raise ConfigError(f"--corpus {path}: there is no file; name a folder with recordings")
    named = hints.table or name
    tables = [named] if named else [e.path for e in entries if _is_table(e.path)]
    if not named and any(_IEMOCAP.fullmatch(entry.path) for entry in entries):
        config = CorpusConfig(adapter="iemocap")
    else:
        shards = None if named else find_shards(source, entries, SPELLINGS)
        config = shards or _table_or_release(
            path, source, tables, entries, hints, named=bool(named or hints.columns)
        )
    # Every fault is counted; how many are allowed is decided below.
    lenient = config.model_copy(update={"max_bad_fraction": 1.0})
    listing = read_corpus(lenient, source, gender_needed=False)
    if len({u.emotion for u in listing.utterances}) < 2:
        raise CorpusError(
            f"--corpus {path}: all utterances have one emotion; label at least two emotions"
        )
    bad = listing.num_bad / listing.num_listed
    if bad > config.max_bad_fraction:
        config = config.model_copy(update={"max_bad_fraction": min(1.0, round(bad + 0.005, 2))})
    location = folder if "://" in folder else normalize_uri(folder).removeprefix("file://")
    return FoundCorpus(location, config, listing, _mean_s(source, listing))


def _table_or_release(
    path: str,
    source: Store,
    tables: Sequence[str],
    entries: Sequence[Entry],
    hints: Hints,
    *,
    named: bool,
) -> CorpusConfig:
    """A usable table, which somebody wrote for this folder; else the adapter of a known release."""
    try:
        return _table(path, source, tables, entries, hints)
    except ConfigError:
        release = None if named else find_release(source, entries)
        if release is None:
            raise
        return release


def _is_table(path: str) -> bool:
    return "/" not in path and PurePosixPath(path).suffix.lower() in _TABLES


def _table(
    path: str, source: Store, tables: Sequence[str], entries: Sequence[Entry], hints: Hints
) -> CorpusConfig:
    """The one table whose columns are those of a corpus."""
    usable: list[CorpusConfig] = []
    missing: list[str] = []
    for table in tables:
        try:
            names = _columns(source, table)
        except (CorpusError, pa.ArrowException) as e:
            # A text beside the recordings, such as erkennung.txt of EmoDB.
            missing.append(f"{table}: is no table ({e})")
            continue
        strange = sorted(set(hints.columns.values()) - set(names))
        if strange:
            raise ConfigError(
                f"--column: {table} has no column {', '.join(map(repr, strange))}; it has {', '.join(names)}"
            )
        guessed = {ours: theirs for ours in SPELLINGS if (theirs := _match(ours, names))}
        columns = guessed | dict(hints.columns)
        if "path" in columns:
            columns.setdefault("id", columns["path"])
        lacks = [ours for ours in NEEDED if ours not in columns]
        if lacks:
            has = ", ".join(names[:12])
            missing.append(f"{table}: lacks {', '.join(lacks)}; it has the columns {has}")
            continue
        renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
        usable.append(
            CorpusConfig(adapter="table", table=table, columns=renamed, audio_root=hints.audio_root)
        )
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(config.table for config in usable)
        raise ConfigError(
            f"--corpus {path}: holds several tables: {names}; name one of them, as in --corpus "
            f"{path.rstrip('/')}/{usable[0].table}"
        )
    if missing:
        raise ConfigError.of_all(
            f"--corpus {path}: no table has the columns path, speaker and emotion; name them with "
            f"--column OURS=THEIRS, or add them:",
            missing,
        )
    raise _no_table(path, entries)


def _no_table(path: str, entries: Iterable[Entry]) -> ConfigError:
    audio = [e.path for e in entries if PurePosixPath(e.path).suffix.lower() in _AUDIO]
    if not audio:
        return ConfigError(
            f"--corpus {path}: holds neither recordings nor a table, and is no known corpus; name the "
            f"folder of its release (gmp-atl corpora list shows an example of each), or one with "
            f"recordings and a table"
        )
    first = PurePosixPath(audio[0])
    folders = [*first.parts[:-1]]
    guess = " and ".join(repr(step) for step in folders[:2])
    hint = (
        f" The folders {guess} may be speaker and emotion: then the adapter folder reads them, with "
        f"corpus.options = {{ pattern = '{{speaker}}/{{emotion}}/**/*' }}."
        if len(folders) >= 2
        else ""
    )
    return ConfigError(
        f"--corpus {path}: holds {len(audio)} recordings and no table, so speaker, emotion and gender "
        f"are missing.{hint} Write {path.rstrip('/')}/manifest.csv with one row per recording:\n"
        f"  id,path,speaker,gender,emotion\n"
        f"  {first.stem},{first},{folders[0] if folders else 'SPEAKER'},female or male,"
        f"{folders[1] if len(folders) > 1 else 'EMOTION'}\n"
        f"gender may be left out; the run then does without it"
    )


def _columns(source: Store, table: str) -> list[str]:
    data = read_outside(table) if is_absolute(table) else source.read(table)
    if table.lower().endswith(".parquet"):
        return pq.read_schema(io.BytesIO(data)).names
    return column_names(data, _mark(data, table))


def _mark(data: bytes, table: str) -> str:
    """The delimiter by which the header has the most columns that are known under some name."""
    header = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    known = {name for ours, others in SPELLINGS.items() for name in (ours, *others)}
    found = {word for mark in ",;\t" for word in header.strip().split(mark)}
    needed = {word for word in found if word.strip('" ').lower() in known}
    return find_delimiter(data, needed, "auto", table)


def _match(ours: str, names: Sequence[str]) -> str | None:
    """The column that is ours: by its own name, or by one that it often has."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[n] for n in (ours, *SPELLINGS[ours]) if n in lower), None)


def _mean_s(source: Store, listing: CorpusListing) -> float:
    utterances = listing.utterances
    step = max(1, len(utterances) // _MOST_HEADERS)
    lengths: list[float] = []
    files = AudioBytes(source)
    for u in utterances[::step]:
        if u.start_s is not None and u.end_s is not None:
            lengths.append(u.end_s - u.start_s)
            continue
        try:
            header = read_header(files.read(u.path))
            lengths.append(header.frames / header.rate_hz - (u.start_s or 0.0))
        except (CorpusError, UnreadableError):
            continue  # a bad recording; ingest names it
    if not lengths:
        raise CorpusError(f"{source.uri}: none of the recordings that were tried can be decoded")
    return sum(lengths) / len(lengths)
