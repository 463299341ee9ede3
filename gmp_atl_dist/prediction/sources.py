"""Finds recordings: files, folders, globs, lists of paths, and objects of ``s3://``, ``gs://`` and ``az://``.

Only names are kept, about 100 bytes for each recording. Audio is read later (``reading.py``).
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gmp_atl_dist.corpora.unlabelled import AUDIO_SUFFIXES
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.prediction.path_lists import LIST_SUFFIXES, listed_paths
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.uris import OBJECT_STORES

_SHOWN_REPEATED = 3


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that is to be read: a path or a URI of an object.

    ``error`` says why nothing can be read there; it is empty otherwise.
    """

    name: str
    error: str = ""

    def read(self) -> bytes:
        """The whole file.

        Raises:
            CorpusError: it is not there or may not be read.
            ArtifactError: the object store does not answer.
        """
        if self.error:
            raise CorpusError(self.error)
        if self.name.startswith(OBJECT_STORES):
            bucket, key = _bucket_and_key(self.name)
            return _bucket(bucket).read(key)
        try:
            return Path(self.name).read_bytes()
        except OSError as e:
            raise CorpusError(f"cannot be read ({e.strerror})") from e
        except ValueError as e:
            raise CorpusError(f"is no path of a file ({e})") from e


def _bucket_and_key(uri: str) -> tuple[str, str]:
    """The URI of the bucket, and the key in it."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


@lru_cache(maxsize=16)
def _bucket(bucket: str) -> Store:
    return Store.open(bucket)


def find_sources(paths: Iterable[str]) -> list[Source]:
    """The recordings that ``paths`` name, in the order given; those of a folder sorted by path.

    A path is a file in any common format, a folder (searched to any depth for :data:`AUDIO_SUFFIXES`), a
    glob with ``*``, ``?``, ``[...]`` and ``**``, or a list of paths (``path_lists.py``). ``s3://bucket/key``
    (also ``gs://`` and ``az://``) with the suffix of audio is an object; with another suffix, or none, it is
    a prefix.

    A path that leads nowhere becomes a source with an error.

    Raises:
        ConfigError: a list has no column of paths.
        ArtifactError: the object store does not answer.
    """
    return [source for path in paths for source in _found(path)]


def repeated_line(sources: Iterable[Source]) -> str:
    """A sentence about recordings that are named more than once, and are predicted each time; "" if none."""
    counts = Counter(source.name for source in sources if not source.error)
    names = [name for name, count in counts.items() if count > 1]
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN_REPEATED]) + (", ..." if len(names) > _SHOWN_REPEATED else "")
    are = "1 recording is" if len(names) == 1 else f"{len(names)} recordings are"
    return f"{are} named more than once, and predicted and counted each time: {shown}"


def _found(path: str) -> Iterator[Source]:
    path = path.removeprefix("file://")
    suffix = os.path.splitext(path)[1].lower()
    remote = path.startswith(OBJECT_STORES)
    if suffix in LIST_SUFFIXES and not _is_pattern(path):
        try:
            data = Source(path).read()
        except CorpusError as e:
            yield Source(path, e.message)
            return
        for name, error in listed_paths(path, data):
            yield Source(name, error)
    elif remote:
        yield from _found_objects(path, suffix)
    elif os.path.isdir(path):
        yield from _all_or_error(path, _files_below(path), "holds no audio file")
    elif _is_pattern(path) and not os.path.exists(path):
        yield from _all_or_error(path, _matches(path), "matches no audio file")
    else:
        yield Source(path)


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path)


def _all_or_error(path: str, names: Iterable[str], problem: str) -> Iterator[Source]:
    name = None
    for name in names:
        yield Source(name)
    if name is None:
        yield Source(path, problem)


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def _files_below(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        # Hidden ones are of an editor or a file manager, such as ._a.wav of macOS.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if _is_audio(name) and not name.startswith("."):
                yield os.path.join(here, name)


def _matches(pattern: str) -> Iterator[str]:
    names_suffix = bool(os.path.splitext(pattern)[1])
    for name in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(name):
            # With ** the files below are matches themselves.
            yield from () if "**" in pattern else _files_below(name)
        elif names_suffix or _is_audio(name):
            yield name


def _found_objects(uri: str, suffix: str) -> Iterator[Source]:
    bucket, key = _bucket_and_key(uri)
    if _is_pattern(key):
        prefix = re.split(r"[*?\[]", key, maxsplit=1)[0].rpartition("/")[0]
        wanted = re.compile(_regular_expression(key))
        keys = (k for k in _keys(bucket, prefix) if wanted.fullmatch(k))
        yield from _all_or_error(uri, (f"{bucket}/{k}" for k in keys), "matches no object")
    elif suffix in AUDIO_SUFFIXES:
        yield Source(uri)
    else:
        keys = (k for k in _keys(bucket, key.rstrip("/")) if _is_audio(k))
        names = (f"{bucket}/{k}" for k in keys)
        yield from _all_or_error(uri, names, "has no audio object below it")


def _keys(bucket: str, prefix: str) -> Iterator[str]:
    for entry in _bucket(bucket).list(prefix):
        yield entry.path


def _regular_expression(pattern: str) -> str:
    """Of a glob over keys: ``*`` and ``?`` stay within a step of the path, ``**`` does not."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "": ""}
    return "".join(
        meanings[p]
        if p in meanings
        else ("[^" + p[2:] if p.startswith("[!") else p)
        if p.startswith("[") and p.endswith("]")
        else re.escape(p)
        for p in pieces
    )
