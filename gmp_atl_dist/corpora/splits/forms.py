"""The forms that lists of utterances have: JSON lines and JSON as of EmoBox, JSON as of s3prl, CSV and TSV.

A form only says where the fields of an utterance stand. The names of fields are those of ``FIELDS``, in any
case. What a list does not tell stays empty; nothing is guessed here.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from gmp_atl_dist.corpora.delimited import DELIMITERS, read_columns
from gmp_atl_dist.errors import CorpusError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "key": ("key", "id", "utterance_id", "utt_id", "utt"),
    "path": (
        *("wav", "audio", "path", "audio_path", "audio_filepath", "wav_path"),
        *("file", "filename", "file_name", "filepath"),
    ),
    "speaker": ("speaker", "spk", "speaker_id", "spk_id", "spkr_id", "spkrid", "actor", "actorid"),
    "session": ("session", "session_id"),
    "dialogue": ("dialogue", "dialog", "dialogue_id", "dialog_id", "conversation"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "start_s": ("start_s", "start", "start_time", "begin"),
    "end_s": ("end_s", "end", "end_time"),
    "split": ("split", "split_set", "set", "subset", "partition"),
    "fold": ("fold", "fold_id", "cv_fold"),
    "dataset": ("dataset", "corpus"),
}
"""Our field -> the names that lists give it, the first one that is there."""

TABLES = ("csv", "tsv", "txt")
SUFFIXES = ("jsonl", "json", *TABLES)


@dataclass(frozen=True, slots=True)
class ListedRow:
    """One utterance of a list. Fields that the list does not tell are empty.

    ``where`` is the file and line, for messages. ``start_s`` and ``end_s`` are the limits of a segment of the
    recording ``path``; None means its beginning or its end.
    """

    where: str
    key: str = ""
    path: str = ""
    speaker: str = ""
    session: str = ""
    dialogue: str = ""
    text: str = ""
    split: str = ""
    fold: str = ""
    dataset: str = ""
    start_s: float | None = None
    end_s: float | None = None

    @property
    def name(self) -> str:
        """What messages call the utterance."""
        return self.key or self.path


def read_rows(data: bytes, file: str) -> list[ListedRow]:
    """The utterances of a list, in its order.

    Raises:
        CorpusError: the file is no list in one of the forms, or a row names no utterance.
    """
    suffix = file.rpartition(".")[2].lower()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise CorpusError(f"{file}: is not UTF-8 text ({e}); write it again as UTF-8") from e
    if suffix == "jsonl":
        found = _of_json_lines(text, file)
    elif suffix == "json":
        found = _of_json(text, file)
    elif suffix in TABLES:
        found = _of_table(data, text, file)
    else:
        raise CorpusError(f"{file}: is no {', '.join(f'.{s}' for s in SUFFIXES)} file; convert it")
    rows = [_row(where, fields) for where, fields in found]
    nameless = [row.where for row in rows if not row.name]
    if nameless or not rows:
        raise CorpusError(
            f"{nameless[0] if nameless else file}: names no utterance; a row needs one of the fields "
            f"{', '.join(FIELDS['key'])}, or a path in {', '.join(FIELDS['path'])}"
        )
    return rows


def _of_json_lines(text: str, file: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{file}:{number}"
            yield where, _object(_parsed(line, where), where)


def _of_json(text: str, file: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    """s3prl's ``{"meta_data": [...]}``, EmoBox's ``{key: {...}}``, or a list of objects."""
    whole = _parsed(text, file)
    if isinstance(whole, dict) and isinstance(whole.get("meta_data"), list):
        whole = whole["meta_data"]
    if isinstance(whole, list):
        for number, value in enumerate(whole, 1):
            where = f"{file}, item {number}"
            yield where, _object(value, where)
        return
    for key, value in _object(whole, file).items():
        where = f"{file}, {key!r}"
        yield where, {"key": key, **_object(value, where)}


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise CorpusError(f"{where}: is not JSON ({e}); the list may be cut short") from e


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise CorpusError(
            f"{where}: is {type(value).__name__}, not an object with the fields of an utterance; known are "
            f"EmoBox's JSON and JSON lines, and s3prl's JSON"
        )
    return value


def _of_table(data: bytes, text: str, file: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    """The rows of a table, as many as it has: a stray quotation mark swallows none."""
    header = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    read = {mark: next(csv.reader([header], delimiter=mark), []) for mark in DELIMITERS.values()}
    delimiter = max(read, key=lambda mark: len(_known(tuple(read[mark]))))
    names = read[delimiter]
    wanted = set(_known(tuple(names)).values())
    if len(wanted) < len([n for n in names if n in wanted]):
        raise CorpusError(f"{file}: its header has a column twice: {header!r}; keep one")
    if not {*FIELDS["key"], *FIELDS["path"]} & {name.strip().lower() for name in wanted}:
        raise CorpusError(
            f"{file}: its header {header!r} names no utterance; it needs one of the columns "
            f"{', '.join(FIELDS['key'])}, or {', '.join(FIELDS['path'])}"
        )
    try:
        table = read_columns(data, delimiter, wanted, file)
    except pa.ArrowException as e:
        raise CorpusError(
            f"{file}: cannot be read as a table ({e}); look for a quotation mark that is not closed, or a "
            f"row with other columns"
        ) from e
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{file}, row {number}", row


@lru_cache
def _known(names: tuple[str, ...]) -> Mapping[str, str]:
    """Our field -> the first name of it that is there, as the list spells it."""
    spelled = {name.strip().lower(): name for name in names}
    found: dict[str, str] = {}
    for field, aliases in FIELDS.items():
        for alias in aliases:
            if alias in spelled:
                found.setdefault(field, spelled[alias])
    return found


def _row(where: str, fields: Mapping[str, object]) -> ListedRow:
    names = _known(tuple(fields))

    def told(field: str) -> str:
        return _text(fields[names[field]]) if field in names else ""

    row = ListedRow(
        where=where,
        key=told("key"),
        path=told("path"),
        speaker=told("speaker"),
        session=told("session"),
        dialogue=told("dialogue"),
        text=told("text"),
        split=told("split"),
        fold=told("fold"),
        dataset=told("dataset"),
        start_s=_seconds(told("start_s"), "start_s", where),
        end_s=_seconds(told("end_s"), "end_s", where),
    )
    if row.start_s is not None and row.end_s is not None and row.end_s <= row.start_s:
        raise CorpusError(
            f"{where}: ends at {row.end_s:g} s, before it starts at {row.start_s:g} s"
        )
    return row


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _seconds(text: str, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise CorpusError(f"{where}: {name} is {text!r}, not a number of seconds")
    return value
