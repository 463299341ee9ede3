"""What the sides of listed folds share: speakers, audio, dialogues, sessions and texts.

A shared speaker, or the same audio, between training and test or between validation and test is a leak. A
shared dialogue or session is a warning, because partners hear each other, and so is a speaker in training
and validation. A shared text is a fact: in acted corpora everybody reads the same sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.corpora.splits.lists import ListedFold
from gmp_atl_dist.corpora.splits.recordings import RecordingNames, overlapping
from gmp_atl_dist.corpora.splits.told import Told
from gmp_atl_dist.records import Split

Verdict: TypeAlias = Literal["leak", "unknown", "warning", "clean"]
Kind: TypeAlias = Literal["speakers", "audio", "dialogues", "sessions", "texts"]
VERDICTS: tuple[Verdict, ...] = ("leak", "unknown", "warning", "clean")
"""Worst first."""

_PAIRS: tuple[tuple[Split, Split], ...] = (
    ("train", "test"),
    ("valid", "test"),
    ("train", "valid"),
)
_FIELDS: dict[Kind, str] = {
    "speakers": "speaker",
    "dialogues": "dialogue",
    "sessions": "session",
    "texts": "text",
}


@dataclass(frozen=True)
class Shared:
    """What two sides of a fold share.

    Attributes:
        names: sorted; of ``audio`` the rows of the second side.
        num_rows: rows of the second side that are concerned.
    """

    kind: Kind
    sides: tuple[Split, Split]
    names: tuple[str, ...]
    num_rows: int

    @property
    def weight(self) -> Verdict:
        if self.kind in ("speakers", "audio"):
            return "leak" if "test" in self.sides else "warning"
        return "clean" if self.kind == "texts" else "warning"


@dataclass(frozen=True)
class FoldAudit:
    """What was found in one fold.

    Attributes:
        unknown: what could not be compared, and why.
        num_apart: recordings of which training and test have segments that do not overlap.
    """

    fold: ListedFold
    source: str
    shared: tuple[Shared, ...]
    unknown: tuple[str, ...]
    num_apart: int = 0

    @property
    def verdict(self) -> Verdict:
        found: set[Verdict] = {shared.weight for shared in self.shared}
        if self.unknown:
            found.add("unknown")
        for verdict in VERDICTS:
            if verdict in found:
                return verdict
        return "clean"

    def of(self, kind: Kind, sides: tuple[Split, Split] = ("train", "test")) -> Shared | None:
        """What of this kind the two sides share; None: nothing."""
        return next((s for s in self.shared if (s.kind, s.sides) == (kind, sides)), None)


def audit_fold(told: Told, recordings: RecordingNames) -> FoldAudit:
    """Compare the sides of a fold with each other."""
    fold = told.fold
    shared: list[Shared] = []
    num_apart = 0
    for pair in _PAIRS:
        a, b = (fold.rows(side) for side in pair)
        for kind, name in _FIELDS.items():
            shared += _shared(kind, pair, a, b, name)
        same, apart = overlapping(a, b, recordings)
        num_apart += apart if pair == ("train", "test") else 0
        if same:
            names = tuple(sorted({row.name for row in same}))
            shared.append(Shared("audio", pair, names, len(same)))
    unknown = (*_unknown(told), *_unread(fold, recordings))
    return FoldAudit(fold, told.source, tuple(shared), unknown, num_apart)


def _unread(fold: ListedFold, recordings: RecordingNames) -> list[str]:
    """Recordings whose samples were asked for, and are not there."""
    names = {recordings.name_of(row) for side in fold.sides.values() for row in side}
    unread = sorted(names & recordings.unread)
    if not unread:
        return []
    return [
        f"{len(unread)} of {len(names)} recordings are not below --audio, so their samples were not "
        f"compared; the first: {unread[0]!r}"
    ]


def _shared(
    kind: Kind,
    pair: tuple[Split, Split],
    a: Sequence[ListedRow],
    b: Sequence[ListedRow],
    name: str,
) -> list[Shared]:
    there = {getattr(row, name) for row in a} - {""}
    counts = Counter(getattr(row, name) for row in b)
    both = sorted(there & counts.keys())
    return [Shared(kind, pair, tuple(both), sum(counts[n] for n in both))] if both else []


def _unknown(told: Told) -> list[str]:
    fold = told.fold
    absent = [side for side in ("train", "test") if not fold.rows(side)]
    if absent:
        return [f"there is no {' and no '.join(absent)} list"]
    reasons: list[str] = []
    rows = [row for side in fold.sides.values() for row in side]
    untold = [row for row in rows if not row.speaker]
    if len(untold) == len(rows):
        reasons.append("the list names no speaker")
    elif untold:
        reasons.append(f"{len(untold)} rows tell no speaker; the first: {untold[0].name!r}")
    return reasons
