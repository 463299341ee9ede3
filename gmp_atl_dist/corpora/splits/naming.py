"""How the rows of lists name the utterances of a corpus: by id, or by the path of the audio.

A list that was made elsewhere has the paths of another disk. So a path is compared as a whole and by its
end. Only where neither that nor an id finds any row, the name of the file alone counts, with or without its
suffix: the same recording may be a WAV file there and a FLAC file here. What fits several utterances is never
guessed.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeAlias

from gmp_atl_dist.corpora.addresses import find_address
from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.errors import CorpusError

_SHOWN = 5

Candidates: TypeAlias = Callable[[ListedRow], Sequence[str]]
"""The utterances of the corpus that a row may mean."""


def _without_dataset(row: ListedRow) -> str:
    prefix = f"{row.dataset}-"
    return row.key.removeprefix(prefix) if row.dataset else ""


_IDS: Sequence[Callable[[ListedRow], str]] = (
    lambda row: row.key,
    _without_dataset,
    lambda row: row.key.replace("-", "_"),
    lambda row: _stem(row.path),
    lambda row: row.path,
    lambda row: str(PurePosixPath(row.path).with_suffix("")) if _stem(row.path) else "",
)
"""How a row may tell the id of an utterance."""


class Naming:
    """Finds the utterance of a row. One way holds for all rows of all lists: the one that finds most.

    Ids, whole paths and ends of paths come before names of files.

    Args:
        ids: of the corpus.
        paths: path of the audio by id; empty if they are not known.
        rows: of all lists.

    Raises:
        CorpusError: no way finds any row, or a row fits several utterances; names them.
    """

    def __init__(
        self, ids: Iterable[str], paths: Mapping[str, str], rows: Iterable[ListedRow]
    ) -> None:
        known = frozenset(ids)
        # A recording that was left out when the corpus was stored still has a path.
        paths = {name: path for name, path in paths.items() if name in known}
        distinct = list({(r.key, r.path, r.dataset): r for r in rows}.values())
        by_id = [_by_id(name, known) for name in (*_IDS, _after(_prefix(known)))]
        by_path, by_name = _by_path(paths)
        # An id is unique. So where a path finds no more than an id, the id decides.
        self._candidates = max((*by_id, *by_path), key=lambda way: _score(way, distinct))
        found = [self._candidates(row) for row in distinct]
        if not any(found):
            self._candidates = max(by_name, key=lambda way: _score(way, distinct))
            found = [self._candidates(row) for row in distinct]
        if not any(found):
            raise CorpusError(_nothing_found(distinct[0], len(distinct), known, paths))
        several = [
            f"{row.where}: {row.path!r} may be {' or '.join(_shown(names, paths))}"
            for row, names in zip(distinct, found, strict=True)
            if len(names) > 1
        ]
        if several:
            raise CorpusError.of_all(
                "folds.lists: rows fit several utterances of the corpus; write the path "
                "relative to the corpus, or the id of the utterance as key or id:",
                several,
            )

    def __call__(self, row: ListedRow) -> str:
        """The id of the row's utterance; "" if the corpus does not have it."""
        names = self._candidates(row)
        return names[0] if names else ""


def _score(way: Candidates, rows: Iterable[ListedRow]) -> tuple[int, int]:
    counts = [len(way(row)) for row in rows]
    return sum(count == 1 for count in counts), sum(map(bool, counts))


def _by_id(name: Callable[[ListedRow], str], known: frozenset[str]) -> Candidates:
    return lambda row: (found,) if (found := name(row)) in known else ()


def _by_path(paths: Mapping[str, str]) -> tuple[list[Candidates], list[Candidates]]:
    """Ways that compare paths, and ways that compare names of files; the strictest first."""
    plain = {name: _plain(path) for name, path in paths.items()}
    whole, named, stems = (_grouped(plain, key) for key in (lambda p: p, posixpath.basename, _stem))

    def by_end(row: ListedRow) -> Sequence[str]:
        path = _plain(row.path)
        return [n for n in named.get(posixpath.basename(path), ()) if _ends_alike(path, plain[n])]

    def by(groups: Mapping[str, Sequence[str]], key: Callable[[str], str]) -> Candidates:
        return lambda row: groups.get(key(_plain(row.path)), ()) if row.path else ()

    return [by(whole, str), by_end], [by(named, posixpath.basename), by(stems, _stem)]


def _grouped(plain: Mapping[str, str], key: Callable[[str], str]) -> Mapping[str, Sequence[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, path in plain.items():
        groups[key(path)].append(name)
    return {path: sorted(names) for path, names in groups.items()}


def _plain(path: str) -> str:
    """A path with ``/`` between its parts; of audio in a tar shard, the path of the member."""
    address = find_address(path)
    inside = address.member if address is not None and address.is_range else path
    return posixpath.normpath(inside.replace("\\", "/")) if inside else ""


def _ends_alike(a: str, b: str) -> bool:
    """Whether one path is the end of the other, from one of its folders on."""
    return a == b or a.endswith(f"/{b}") or b.endswith(f"/{a}")


def _stem(path: str) -> str:
    return PurePosixPath(path).stem if path else ""


def _prefix(ids: Iterable[str]) -> str:
    """What all ids begin with, to the first underscore: the corpus's name, as in ``emodb_03a01Fa``."""
    prefixes = {"".join(name.partition("_")[:2]) for name in ids}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    return prefix if prefix.endswith("_") else ""


def _after(prefix: str) -> Callable[[ListedRow], str]:
    return lambda row: prefix + _stem(row.path) if row.path else ""


def _shown(names: Sequence[str], paths: Mapping[str, str]) -> list[str]:
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [f"{name!r} ({paths[name]})" for name in names[:_SHOWN]] + more


def _nothing_found(
    first: ListedRow, count: int, known: frozenset[str], paths: Mapping[str, str]
) -> str:
    name = min(known)
    has, advice = f"{name!r}", "Make the ids of the corpus equal to one of them"
    if name in paths:
        has += f" with the audio {paths[name]!r}"
        advice += ", or let the lists name its audio"
    else:
        advice += (
            ". Paths of its audio are not known: an earlier release stored the corpus; to match paths, "
            "delete its artifacts/ingest and run again"
        )
    return (
        f"folds.lists: none of the {count} listed utterances is in the corpus, neither by its key nor by "
        f"its path or file name. The first is key {first.key!r}, path {first.path!r}; the corpus has "
        f"{has}. {advice}"
    )
