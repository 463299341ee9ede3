"""Finds lists as they lie, and makes folds of them: which file is whose training or test side.

The side of a row is in the name of its file or folder (``train``, ``valid``, ``dev``, ``test``, ``eval``),
or in a column ``split``. Files whose paths differ in that word alone belong to one fold: EmoBox's
``fold_1/emodb_train_fold_1.jsonl`` and ``fold_1/emodb_test_fold_1.jsonl``, s3prl's
``Session1/train_meta_data.json`` and ``Session1/test_meta_data.json``. A column ``fold`` makes one fold of
each of its values, which is tested while the others train.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from gmp_atl_dist.corpora.audio_paths import is_absolute
from gmp_atl_dist.corpora.splits.forms import SUFFIXES, ListedRow, read_rows
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.records import Split
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.uris import uri_problem

_SIDES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "eval": "test",
    "evaluation": "test",
}
_WORD = re.compile(
    rf"(?<![A-Za-z])({'|'.join(sorted(_SIDES, key=len, reverse=True))})\d*(?![A-Za-z])",
    re.IGNORECASE,
)
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ListedFold:
    """One fold of the lists.

    Attributes:
        name: the files' common path, with ``*`` in place of the side.
        sides: the rows of each side that the lists have.
    """

    name: str
    sides: Mapping[Split, tuple[ListedRow, ...]] = field(default_factory=dict)

    def rows(self, side: Split) -> tuple[ListedRow, ...]:
        return self.sides.get(side, ())


@dataclass(frozen=True)
class FoundLists:
    """The folds of one argument, and the files beside them that are no side of any fold."""

    folds: tuple[ListedFold, ...]
    ignored: tuple[str, ...] = ()


def read_lists(where: Sequence[str], base_uri: str = "") -> FoundLists:
    """The folds of lists, in the natural order of their names.

    Args:
        where: folders, files or patterns such as ``data/emodb/fold_*/*_fold_?.jsonl``. Folders are searched
            with their sub-folders.
        base_uri: what a relative path is relative to; "": the working folder.

    Raises:
        ConfigError: there is no such file, or nothing says which side a row is on.
        CorpusError: a list cannot be read.
    """
    files: dict[str, tuple[Store, str]] = {}
    given: set[str] = set()
    for one in where:
        store, names, is_named = _files(one, base_uri)
        for name in names:
            files[f"{store.uri}/{name}"] = (store, name)
            if is_named:
                given.add(f"{store.uri}/{name}")
    sided: dict[tuple[str, str], list[tuple[Split, list[ListedRow]]]] = {}
    tables: list[ListedFold] = []
    ignored: list[str] = []
    names = _short_names(files)
    for uri, (store, path) in files.items():
        told = _side_of(path)
        if told is None and uri not in given:
            ignored.append(names[uri])
            continue
        rows = read_rows(store.read(path), names[uri])
        if told is None or any(row.split for row in rows):
            tables += _of_columns(names[uri], rows)
        else:
            side, common = told
            short = names[uri].removesuffix(path) + common
            sided.setdefault((store.uri, short), []).append((side, rows))
    folds = [*_together(sided), *tables]
    if not folds:
        raise ConfigError(
            f"{', '.join(where)}: no file there tells a side by its name (train, valid, test); name a "
            f"table with a column split or fold itself, or rename the lists"
        )
    return FoundLists(tuple(sorted(folds, key=lambda f: _natural(f.name))), tuple(sorted(ignored)))


def _files(where: str, base_uri: str) -> tuple[Store, list[str], bool]:
    """The store, the lists in it, and whether each of them was named."""
    if problem := uri_problem(where):
        raise ConfigError(f"{where!r} {problem}")
    uri = where if is_absolute(where) or not base_uri else f"{base_uri.rstrip('/')}/{where}"
    is_pattern = bool(_PATTERN.search(where))
    if is_pattern:
        plain = uri[: _PATTERN.search(uri, len(uri) - len(where)).start()]  # pyright: ignore[reportOptionalMemberAccess]
        folder, _, _ = plain.rpartition("/")
        store = Store.open(folder or ("/" if uri.startswith("/") else "."))
        pattern = uri[len(folder) + 1 if folder or uri.startswith("/") else 0 :]
        names = [e.path for e in store.list() if _matches(e.path, pattern)]
        if not names:
            raise ConfigError(f"{where}: no file matches below {store.uri}; check the pattern")
        return store, names, True
    folder, _, name = uri.rstrip("/").rpartition("/")
    parent = Store.open(folder or ("/" if uri.startswith("/") else "."))
    if name and name.rpartition(".")[2].lower() in SUFFIXES and parent.exists(name):
        return parent, [name], True
    try:
        store = Store.open(uri)
        names = [e.path for e in store.list() if e.path.rpartition(".")[2].lower() in SUFFIXES]
    except ArtifactError as e:
        raise ConfigError(f"{where}: {e.message}; name a folder, a file or a pattern") from e
    if not names:
        raise ConfigError(
            f"{where}: there is no list ({', '.join(f'.{s}' for s in SUFFIXES)}) at {store.uri}; name a "
            f"folder, a file or a pattern"
        )
    # EmoBox has each list in two forms.
    twice = {n for n in names if n.endswith(".json") and f"{n}l" in {*names}}
    return store, [n for n in names if n not in twice], False


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _short_names(files: Mapping[str, tuple[Store, str]]) -> dict[str, str]:
    """What messages call the files: the path below the folder that was named, if that is unambiguous."""
    counts: dict[str, int] = {}
    for _, path in files.values():
        counts[path] = counts.get(path, 0) + 1
    return {
        uri: path if counts[path] == 1 else f"{store.uri.rpartition('/')[2]}/{path}"
        for uri, (store, path) in files.items()
    }


def _side_of(path: str) -> tuple[Split, str] | None:
    """The side that a path tells, and the path with ``*`` in place of the word; None if it tells none."""
    parts = path.split("/")
    for i in reversed(range(len(parts))):
        found = list(_WORD.finditer(parts[i]))
        if found:
            word = found[-1]
            part = f"{parts[i][: word.start()]}*{parts[i][word.end() :]}"
            return _SIDES[word[1].lower()], "/".join([*parts[:i], part, *parts[i + 1 :]])
    return None


def _together(
    sided: Mapping[tuple[str, str], Sequence[tuple[Split, list[ListedRow]]]],
) -> list[ListedFold]:
    """The folds of files with sides.

    Files whose names differ in more than the side are one fold, if there is one file for each side.
    """
    folds = [_fold(name, lists) for (_, name), lists in sided.items()]
    alone = all(len(fold.sides) == 1 for fold in folds)
    sides = [next(iter(fold.sides)) for fold in folds] if alone else []
    if alone and len(folds) > 1 and {"train", "test"} <= {*sides} and len({*sides}) == len(sides):
        name = " + ".join(fold.name for fold in folds)
        return [_fold(name, [pair for lists in sided.values() for pair in lists])]
    return folds


def _fold(name: str, lists: Iterable[tuple[Split, Sequence[ListedRow]]]) -> ListedFold:
    sides: dict[Split, list[ListedRow]] = {}
    for side, rows in lists:
        sides.setdefault(side, []).extend(rows)
    return ListedFold(name, {s: tuple(sides[s]) for s in get_args(Split) if s in sides})


def _of_columns(name: str, rows: Sequence[ListedRow]) -> list[ListedFold]:
    """The folds of a table with a column ``split`` or ``fold``."""
    if any(row.split for row in rows):
        sides: list[tuple[Split, tuple[ListedRow]]] = [(_side(row), (row,)) for row in rows]
        numbers = sorted({row.fold for row in rows}, key=_natural)
        if len(numbers) < 2:
            return [_fold(name, sides)]
        return [
            _fold(f"{name}, fold {n}", (s for s in sides if s[1][0].fold == n)) for n in numbers
        ]
    numbers = sorted({row.fold for row in rows}, key=_natural)
    if len(numbers) < 2 or "" in numbers:
        raise ConfigError(
            f"{name}: tells no side: neither its name (train, valid, test), nor a column split, nor a "
            f"column fold with two values or more for every row; name the side"
        )
    return [
        _fold(f"{name}, fold {n}", (("test" if r.fold == n else "train", (r,)) for r in rows))
        for n in numbers
    ]


def _side(row: ListedRow) -> Split:
    word = _WORD.fullmatch(row.split)
    if word is None:
        raise CorpusError(
            f"{row.where}: split is {row.split!r}; use train, valid or test (also dev, eval)"
        )
    return _SIDES[word[1].lower()]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts fold_10 after fold_2."""
    pieces = re.split(r"(\d+)", text)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in pieces]
