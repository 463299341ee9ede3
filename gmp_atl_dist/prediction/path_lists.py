"""Lists of recordings: a table with a column of paths, or a text file with one path per line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.uris import OBJECT_STORES

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
COLUMNS = ("path", "file", "filename", "file_name", "audio", "wav", "audio_path")
"""Names of the column of paths; the first one that the table has is used."""

_OUTSIDE = "leaves the folder of the list; write an absolute path, or move the list"


def listed_paths(where: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(path or URI, error) of each entry of a list, in order; the error is empty for a usable entry.

    Relative paths are below the folder of the list, and may not leave it. Absolute paths are taken from a
    local list only, because a list in an object store must not choose files of this machine.

    Args:
        where: path or URI of the list.
        data: its content, UTF-8. ``.csv`` may be separated by comma, semicolon or tab.

    Raises:
        ConfigError: it is not UTF-8, or has none of :data:`COLUMNS`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{where} is not UTF-8 ({e}); save it as UTF-8") from e
    folder = where.rpartition("/")[0] if "://" in where else os.path.dirname(where)
    remote = "://" in where
    for entry in _entries(where, text):
        yield _resolved(entry, folder, remote)


def _entries(where: str, text: str) -> Iterator[str]:
    if where.lower().endswith(".txt"):
        lines = (line.strip() for line in text.splitlines())
        yield from (line for line in lines if line and not line.startswith("#"))
        return
    header = text.partition("\n")[0]
    delimiter = max("\t;,", key=header.count)
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    column = next((names[name] for name in COLUMNS if name in names), None)
    if column is None:
        raise ConfigError(
            f"{where} has the columns {', '.join(rows.fieldnames or ()) or '(none)'}, and none of them is "
            f"one of paths; name one of {', '.join(COLUMNS)}"
        )
    yield from (path for row in rows if (path := (row[column] or "").strip()))


def _resolved(entry: str, folder: str, remote: bool) -> tuple[str, str]:
    if entry.startswith(OBJECT_STORES):
        return entry, ""
    if os.path.isabs(entry) or "://" in entry:
        local = entry.removeprefix("file://")
        if remote or not os.path.isabs(local):
            return (
                entry,
                "is no path below the folder of the list, and no s3://, gs:// or az:// URI",
            )
        return local, ""
    step = os.path.normpath(entry)
    if step == ".." or step.startswith("../"):
        return entry, _OUTSIDE
    return (f"{folder}/{step}" if remote else os.path.join(folder, step)), ""
