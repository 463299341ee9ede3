"""Folds of lists: each row of a list is found in the corpus, and its side is taken over as it lies.

The corpus's own speakers count, never those of a list. Where every fold of the lists names whole speakers,
the folds are those of speakers, and equal to folds that are planned in another way. A fold that puts one
speaker on two sides is refused, except in the protocol ``speaker_dependent``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.corpora.splits.forms import ListedRow
from gmp_atl_dist.corpora.splits.lists import ListedFold
from gmp_atl_dist.corpora.splits.naming import Naming
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold, FoldUtterances
from gmp_atl_dist.records import Split
from gmp_atl_dist.wording import counted

_SIDES: tuple[Split, ...] = ("train", "valid", "test")
_SHOWN_IDS = 3


@dataclass(frozen=True)
class _LeftOut:
    """Utterances that a fold leaves out, because ``folds.unlisted = 'leave_out'`` allows it.

    Attributes:
        unlisted: ids of the corpus that the fold's lists do not name.
        absent: rows of the lists that the corpus does not have.
    """

    unlisted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def problems(self, num_utterances: int) -> list[str]:
        """The difference between the lists and the corpus, in words."""
        problems: list[str] = []
        if self.absent:
            problems.append(
                f"names {counted(len(self.absent), 'utterance')} that the corpus does not have: "
                f"{_some(self.absent)}"
            )
        if self.unlisted:
            problems.append(
                f"does not name {len(self.unlisted)} of the corpus's {num_utterances} utterances: "
                f"{_some(self.unlisted)}"
            )
        return problems


def listed_folds(
    speakers: Mapping[str, str],
    paths: Mapping[str, str],
    lists: Sequence[ListedFold],
    config: FoldsConfig,
) -> tuple[Fold, ...]:
    """The folds ``fold1``, ``fold2``, ... of the lists, in their order.

    Args:
        speakers: utterance id -> speaker, of the whole corpus.
        paths: utterance id -> path of its audio; empty where the corpus was stored without them.

    Raises:
        ConfigError: a fold lacks a training or test list, or the validation that is asked for.
        CorpusError: the lists and the corpus name different utterances, a row fits several utterances, or
            a speaker is on two sides.
    """
    for fold in lists:
        absent = [side for side in ("train", "test") if not fold.rows(side)]
        if absent:
            raise ConfigError(
                f"folds.lists: {fold.name} has no {' and no '.join(absent)} list; add it, or choose other "
                f"files by a pattern"
            )
    rows = (row for fold in lists for side in fold.sides.values() for row in side)
    named = Naming(speakers, paths, rows)
    sides = [_sides(fold, named) for fold in lists]
    if config.valid == "next":
        sides = _with_next(sides, speakers, config)
    left_out = [_left_out(*both, named, speakers) for both in zip(lists, sides, strict=True)]
    problems = [
        f"{fold.name}: {problem}"
        for fold, out in zip(lists, left_out, strict=True)
        for problem in out.problems(len(speakers))
    ]
    if problems and config.unlisted == "refuse":
        raise CorpusError.of_all(
            "folds.lists: the lists and the corpus name different utterances; make corpus.emotions and "
            "corpus.merge those of the lists, or set folds.unlisted = 'leave_out':",
            problems,
        )
    return tuple(
        _fold(f"fold{i}", fold.name, found, out, speakers, config)
        for i, (fold, found, out) in enumerate(zip(lists, sides, left_out, strict=True), 1)
    )


Sides = dict[Split, frozenset[str]]


def _sides(fold: ListedFold, named: Naming) -> Sides:
    """The utterances of the corpus on each side."""
    owner: dict[str, ListedRow] = {}
    problems: list[str] = []
    for rows in fold.sides.values():
        for row in rows:
            name = named(row)
            other = owner.setdefault(name, row) if name else row
            if (other.path, other.start_s, other.end_s) != (row.path, row.start_s, row.end_s):
                problems.append(f"{other.where} and {row.where} are both {name!r}")
    if problems:
        raise CorpusError.of_all(
            f"folds.lists: {fold.name} names one utterance of the corpus twice, with other audio:",
            problems,
        )
    return {
        side: frozenset(name for row in fold.rows(side) if (name := named(row))) for side in _SIDES
    }


def _with_next(
    sides: Sequence[Sides], speakers: Mapping[str, str], config: FoldsConfig
) -> list[Sides]:
    """With a validation side for each: its own list's, or the next fold's test speakers."""
    has_valid = [bool(found["valid"]) for found in sides]
    if all(has_valid):
        return list(sides)
    if any(has_valid) or len(sides) < 2:
        why = "only some folds have such lists" if any(has_valid) else "there is only one fold"
        raise ConfigError(
            f"folds.valid: 'next' takes the validation lists, or else the next fold's test speakers, but "
            f"{why}; set folds.valid = 'none' or 'share'"
        )
    chosen: list[Sides] = []
    for i, found in enumerate(sides):
        tested = sides[(i + 1) % len(sides)]["test"]
        valid = found["train"] & tested
        if config.protocol != "speaker_dependent":
            names = {speakers[name] for name in tested}
            valid = frozenset(name for name in found["train"] if speakers[name] in names)
        chosen.append({**found, "train": found["train"] - valid, "valid": valid})
    return chosen


def _left_out(
    fold: ListedFold,
    sides: Sides,
    named: Naming,
    speakers: Mapping[str, str],
) -> _LeftOut:
    used = frozenset().union(*sides.values())
    rows = (row for listed in fold.sides.values() for row in listed)
    return _LeftOut(
        unlisted=tuple(sorted(speakers.keys() - used)),
        absent=tuple(sorted({row.name for row in rows if not named(row)})),
    )


def _fold(
    name: str,
    listed: str,
    sides: Sides,
    left_out: _LeftOut,
    speakers: Mapping[str, str],
    config: FoldsConfig,
) -> Fold:
    """A fold of speakers where that says the same, else of utterances."""
    fold = fold_of_sides(name, f"folds.lists: {listed}", sides, speakers, config)
    left = (f"left out: the list {problem}" for problem in left_out.problems(len(speakers)))
    return replace(fold, notes=(f"from {listed}", *left))


def fold_of_sides(
    name: str, where: str, sides: Sides, speakers: Mapping[str, str], config: FoldsConfig
) -> Fold:
    """The fold with these utterances on its sides.

    Raises:
        CorpusError: a speaker is on two sides, and the protocol is not ``speaker_dependent``; or nobody is
            left to train or to be tested.
    """
    by_side = {side: {speakers[u] for u in sides[side]} for side in _SIDES}
    shared = (by_side["train"] | by_side["valid"]) & by_side["test"]
    shared |= by_side["train"] & by_side["valid"]
    if shared and config.protocol != "speaker_dependent":
        raise CorpusError(refusal(where, shared))
    if not sides["test"] or not sides["train"]:
        side = "train" if sides["test"] else "be tested on"
        advice = ", or set folds.valid = 'none'" if config.valid == "next" else ""
        raise CorpusError(
            f"{where}: no utterance of the corpus is left to {side}; look at the lists{advice}"
        )
    whole = len(frozenset().union(*sides.values())) == len(speakers)
    return Fold(
        name,
        train_speakers=tuple(sorted(by_side["train"])),
        valid_speakers=tuple(sorted(by_side["valid"])),
        test_speakers=tuple(sorted(by_side["test"])),
        utterances=None if whole and not shared else FoldUtterances(**sides),
        speaker_dependent=bool(shared),
    )


def refusal(where: str, shared: Iterable[str]) -> str:
    """Why a split that shares speakers is not run, and what to do."""
    names = sorted(shared)
    return (
        f"{where} has {counted(len(names), 'speaker')} on two sides: {_some(names, 10)}. Scores on it are no "
        f"estimate for unknown speakers; choose other lists or folds.k, or set folds.protocol = "
        f"'speaker_dependent' to run it as a warned arm"
    )


def _some(names: Sequence[str], shown: int = _SHOWN_IDS) -> str:
    return ", ".join(map(repr, names[:shown])) + (", ..." if len(names) > shown else "")
