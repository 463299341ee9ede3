"""A corpus with a table: one text or Parquet file with one row per utterance.

``corpus.table`` names the file, relative to the corpus root (``runtime.corpus``), or by an absolute path
or URI. A text file has commas, semicolons or tabs between its columns (``delimited.py``). Columns:

  ``id, path, speaker, emotion``           required; ``path`` is the audio file, relative to the root
  ``gender``                               required by runs that use gender
  ``session, split, start_s, end_s``       optional; ``split`` is train, valid or test; the two times
                                           select a segment of a longer recording

``corpus.columns`` maps other column names: our name = name in the table. One column may be used twice,
as in ``columns = {id = "utt_id", session = "speaker"}``. The classes are the table's emotions, sorted,
unless ``corpus.emotions`` lists them.

Pitfalls: every value is read as text. Speaker ``007`` stays ``007``, and an emotion ``none`` is not a
missing value. A speaker must have the same name in all rows, and different names in different corpora,
because folds distinguish speakers by name only.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.audio_paths import is_absolute
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.checks import WITHOUT_GENDER, spelling
from gmp_atl_dist.corpora.delimited import column_names, find_delimiter, read_columns
from gmp_atl_dist.corpora.encoding import refuse_other_encodings
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError, GmpAtlError
from gmp_atl_dist.records import Gender, Problem, Split, Utterance
from gmp_atl_dist.store.filesystem import Store

NEEDED = ("id", "path", "speaker", "emotion")
OPTIONAL = ("gender", "session", "split", "start_s", "end_s")

_TEXT = ("csv", "tsv", "txt")

# Number of rows that are Python objects at the same time. A million rows would take a gigabyte.
_ROWS_AT_ONCE = 1 << 14

_SPLITS: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "eval": "test",
}


@dataclass(frozen=True)
class Table:
    """Adapter of a table as text or Parquet."""

    name: ClassVar[str] = "table"
    default_emotions: ClassVar[tuple[str, ...]] = ()

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All rows that can be read. A problem names each other row by its number.

        Raises:
            ConfigError: the table is missing or has another format, or columns are missing.
            CorpusError: the file is damaged.
        """
        table = _read_table(source, config)
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        for number, row in enumerate(_rows(table), 1):
            parsed = _parse(row)
            if isinstance(parsed, Utterance):
                utterances.append(parsed)
            else:
                item = f"{config.table}: row {number} (id {row['id']!r})"
                problems.extend(Problem(item, reason) for reason in parsed)
        return utterances, problems


def _read_table(source: Store, config: CorpusConfig) -> pa.Table:
    """The table with our column names and all values as text."""
    suffix = config.table.rpartition(".")[2].lower()
    if suffix not in (*_TEXT, "parquet"):
        raise ConfigError(
            f"corpus.table: {config.table!r} is neither .csv, .tsv, .txt nor .parquet; convert it"
        )
    outside = is_absolute(config.table)
    where = config.table if outside else f"{source.uri}/{config.table}"
    try:
        data = read_outside(config.table) if outside else source.read(config.table)
    except ArtifactError as e:
        if _is_folder(source, config.table, outside):
            raise ConfigError(
                f"corpus.table: {where} is a folder; name the table's file in it"
            ) from e
        raise ConfigError(
            f"corpus.table: {e}; name a file below runtime.corpus, or an absolute path or URI"
        ) from e
    try:
        if suffix in _TEXT:
            refuse_other_encodings(data, where)
            needed = {config.columns.get(name, name) for name in NEEDED}
            delimiter = find_delimiter(data, needed, config.delimiter, where)
            ours = _mapped_columns(config, column_names(data, delimiter))
            table = read_columns(data, delimiter, set(ours.values()), where)
        else:
            columns = pq.read_schema(io.BytesIO(data)).names
            ours = _mapped_columns(config, columns)
            table = pq.read_table(io.BytesIO(data), columns=sorted(set(ours.values())))
        return pa.table({name: _texts(table.column(column)) for name, column in ours.items()})
    except pa.ArrowException as e:
        raise CorpusError(
            f"{where}: cannot be read ({e}); write it again as UTF-8 comma-separated values with one "
            f"header line, or as Parquet"
        ) from e


def _is_folder(source: Store, table: str, outside: bool) -> bool:
    try:
        return Store.open(table).has_any("") if outside else source.has_any(table)
    except GmpAtlError:
        return False


def read_outside(table: str) -> bytes:
    folder, _, name = table.rpartition("/")
    return Store.open(folder or "/").read(name)


def _rows(table: pa.Table) -> Iterator[dict[str, str]]:
    """The rows with our column names, without surrounding blanks; '' for a missing column."""
    absent = dict.fromkeys(OPTIONAL, "")
    for batch in table.to_batches(_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield absent | {name: text.strip() for name, text in row.items()}


def _mapped_columns(config: CorpusConfig, present: list[str]) -> dict[str, str]:
    """Our column names -> those of the table, for all columns that the table has."""
    ours = (*NEEDED, *OPTIONAL)
    problems = [
        f"corpus.columns.{name}: is not a known column; known are {', '.join(ours)}"
        for name in config.columns
        if name not in ours
    ]
    mapped: dict[str, str] = {}
    for name in ours:
        theirs = config.columns.get(name, name)
        if present.count(theirs) == 1:
            mapped[name] = theirs
        elif theirs in present:
            problems.append(f"column {theirs!r} occurs {present.count(theirs)} times; keep one")
        elif name in NEEDED or name in config.columns:
            problems.append(
                f"column {theirs!r} for {name!r} is missing; map it with "
                f"corpus.columns.{name} = '<a column of the table>'"
            )
    if problems:
        if "gender" not in mapped and "gender" not in config.columns:
            problems.append(f"column 'gender' is missing as well. {WITHOUT_GENDER}")
        raise ConfigError.of_all(
            f"{config.table} has the columns {', '.join(present)}, which are not valid:", problems
        )
    return mapped


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column.cast(pa.string()), "")


def _parse(row: dict[str, str]) -> Utterance | list[str]:
    """The utterance of a row, or all reasons why the row is bad."""
    reasons: list[str] = []
    if not row["emotion"]:
        reasons.append("has no emotion; fill it in or remove the row")
    split = spelling(row["split"])
    if split and split not in _SPLITS:
        reasons.append(f"split {row['split']!r} is not known; known are {', '.join(_SPLITS)}")
    times: dict[str, float | None] = {}
    for name in ("start_s", "end_s"):
        times[name] = _seconds(row[name])
        if row[name] and times[name] is None:
            point = "; write a decimal point" if _seconds(row[name].replace(",", ".")) else ""
            reasons.append(f"{name} {row[name]!r} is not a number of seconds{point}")
    if reasons:
        return reasons
    # Equal strings of many rows are stored once.
    return Utterance(
        utterance_id=row["id"],
        path=sys.intern(row["path"]),
        speaker=sys.intern(row["speaker"]),
        # As it stands: whether a gender is needed, and known, is checked for all corpora alike.
        gender=cast(Gender, sys.intern(row["gender"])),
        emotion=sys.intern(row["emotion"]),
        session=sys.intern(row["session"]),
        split=_SPLITS[split] if split else "",
        start_s=times["start_s"],
        end_s=times["end_s"],
    )


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None
