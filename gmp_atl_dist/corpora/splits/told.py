"""Who says each utterance of a list: by the list itself, or by a rule for the names of a known corpus."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.corpora.splits.lists import ListedFold
from gmp_atl_dist.corpora.splits.rules import NameRule
from gmp_atl_dist.records import Split


@dataclass(frozen=True)
class Told:
    """A fold whose rows have what the list and the rule tell.

    Attributes:
        source: where the speakers come from, for people.
        unread: names of rows that do not fit the rule.
    """

    fold: ListedFold
    source: str
    unread: tuple[str, ...] = ()


def tell(fold: ListedFold, rule: NameRule | None) -> Told:
    """Fill in what the names of files tell and the list does not.

    A list's own speakers count, unless it gives one name to several people of a known corpus. s3prl's list of
    IEMOCAP does: its speaker is the beginning of the dialogue's name.
    """
    rows = [row for side in fold.sides.values() for row in side]
    read = {id(row): rule.read(row) if rule else None for row in rows}
    listed = any(row.speaker for row in rows)
    by_rule = rule is not None and bool(rule.speaker)
    source = "the list"
    if by_rule and (not listed or _mixes_people(rows, read)):
        assert rule is not None
        source = f"file names ({rule.title})"
        if listed:
            source += "; the list has one name for several people"
    elif not listed:
        source = f"nobody tells ({rule.title})" if rule else "nobody tells"
        by_rule = False
    else:
        by_rule = False

    def filled(row: ListedRow) -> ListedRow:
        fields = read[id(row)] or {}
        speaker = fields.get("speaker", "") if by_rule else row.speaker
        others = {n: getattr(row, n) or fields.get(n, "") for n in ("session", "dialogue", "text")}
        return replace(row, speaker=_same(speaker), **{n: _same(v) for n, v in others.items()})

    sides: dict[Split, tuple[ListedRow, ...]] = {
        side: tuple(map(filled, found)) for side, found in fold.sides.items()
    }
    unread = tuple(row.name for row in rows if by_rule and read[id(row)] is None)
    return Told(ListedFold(fold.name, sides), source, unread)


def _mixes_people(rows: Sequence[ListedRow], read: dict[int, dict[str, str] | None]) -> bool:
    """Whether one speaker of the list is several of the rule."""
    people: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        fields = read[id(row)]
        if fields is not None and row.speaker:
            people[row.speaker].add(fields.get("speaker", ""))
    return any(len(names) > 1 for names in people.values())


def _same(name: str) -> str:
    """One spelling of a name, whatever Unicode form it has and whether a zero-width character is in it."""
    composed = unicodedata.normalize("NFC", name)
    return "".join(c for c in composed if unicodedata.category(c) != "Cf").strip()
