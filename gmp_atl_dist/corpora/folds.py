"""Plans folds over sessions, speakers, corpora, a given split, or lists of others.

A group is a session, a speaker, one of several corpora, or one of ``folds.k`` groups of these. Each fold
tests on one held-out group, or on one list of groups, and trains on all others.
:class:`~gmp_atl_dist.fold.Fold` refuses a speaker in two sets of one fold, so two sessions that share a
speaker cannot leak. A plan depends on what the utterances are, never on their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.corpora.splits.listed import fold_of_sides, listed_folds
from gmp_atl_dist.corpora.splits.lists import ListedFold, read_lists
from gmp_atl_dist.corpora.splits.partners import partners
from gmp_atl_dist.corpora.splits.stratified import stratified_groups
from gmp_atl_dist.corpora.splits.validation import other_speakers, with_share
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import Split, Utterance, UtteranceGroup, source_of


class Grouped(Protocol):
    """What folds are planned from: an utterance that is listed, or one that is stored."""

    @property
    def utterance_id(self) -> str: ...

    @property
    def speaker(self) -> str: ...

    @property
    def gender(self) -> str: ...

    @property
    def emotion(self) -> str: ...

    @property
    def session(self) -> str: ...

    @property
    def split(self) -> str: ...


def names_utterances(config: FoldsConfig) -> bool:
    """Whether folds are planned from every single utterance, and not from groups of them."""
    return bool(config.lists) or config.protocol == "speaker_dependent"


def read_fold_lists(config: FoldsConfig, corpus_uri: str) -> tuple[ListedFold, ...]:
    """The folds of ``folds.lists``; none without it.

    Raises:
        ConfigError: there is no list.
        CorpusError: a list cannot be read.
    """
    return read_lists([config.lists], corpus_uri).folds if config.lists else ()


def plan_folds(
    utterances: Sequence[Grouped],
    config: FoldsConfig,
    lists: Sequence[ListedFold] = (),
    paths: Mapping[str, str] | None = None,
) -> tuple[Fold, ...]:
    """The folds of ``config``, in order, with the names ``fold1``, ``fold2``, ... or ``split``.

    Args:
        utterances: all of the corpus where :func:`names_utterances` says so; else one of each group of one
            speaker, session and split is enough, and for ``folds.k`` of one gender and emotion as well.
        lists: of :func:`read_fold_lists`.
        paths: utterance id -> path of its audio, which lists may name it by; None: that which a listed
            utterance has.

    Raises:
        ConfigError: held-out groups are unknown, duplicate or too few, or ``folds.run`` names a
            fold that does not exist.
        CorpusError: a speaker would be in two sets of a fold, a set is empty, or utterances lack
            the session or split that ``folds.by`` needs, or lists do not fit the corpus.
    """
    if not utterances:
        raise CorpusError("the corpus has no utterance, so there are no folds; check the corpus")
    if bool(config.lists) != bool(lists):
        raise ValueError(
            "the lists of folds.lists are those of read_fold_lists(), which were not given"
        )
    if config.lists:
        if paths is None:
            paths = {u.utterance_id: u.path for u in utterances if isinstance(u, Utterance)}
        speakers = {u.utterance_id: u.speaker for u in utterances}
        folds = listed_folds(speakers, paths, lists, config)
    elif config.by == "split":
        folds = _by_split(utterances, config)
    else:
        folds = _by_group(utterances, config)
    if config.valid == "share":
        genders = {u.speaker: u.gender for u in utterances}
        owners = {u.utterance_id: u.speaker for u in utterances}
        folds = tuple(with_share(fold, genders, owners, config) for fold in folds)
    if config.protocol == "speaker_dependent" and not any(f.speaker_dependent for f in folds):
        raise ConfigError(
            "folds.protocol: 'speaker_dependent', but no speaker is on two sides of any fold; set "
            "folds.protocol = 'clean'"
        )
    folds = tuple(replace(f, notes=(*f.notes, *partners(f, utterances))) for f in folds)
    if not config.run:
        return folds
    unknown = sorted({number for number in config.run if number > len(folds)})
    if unknown:
        raise ConfigError(
            f"folds.run: there is no fold {', '.join(map(str, unknown))}; "
            f"this corpus has folds 1 to {len(folds)}"
        )
    return tuple(folds[number - 1] for number in sorted(set(config.run)))


def _by_group(utterances: Sequence[Grouped], config: FoldsConfig) -> tuple[Fold, ...]:
    speakers = _speakers_by_group(utterances, config)
    if config.k is not None:
        held_out = _dealt(utterances, speakers, config.k, config)
    else:
        held_out = config.held_out or tuple((name,) for name in sorted(speakers))
    _check_held_out(held_out, speakers, config)
    sessions = _speakers_of_sessions(utterances) if config.valid == "other_speaker" else {}
    folds: list[Fold] = []
    for i, test in enumerate(held_out):
        # Cyclic: the validation group of the last fold is the first group.
        valid = held_out[(i + 1) % len(held_out)] if config.valid == "next" else ()
        train = [name for name in speakers if name not in test and name not in valid]
        fold = Fold(
            name=f"fold{i + 1}",
            train_speakers=_union(speakers, train),
            valid_speakers=_union(speakers, valid),
            test_speakers=_union(speakers, test),
        )
        if config.valid == "other_speaker":
            others = other_speakers(fold.test_speakers, sessions)
            kept = tuple(s for s in fold.train_speakers if s not in others)
            fold = replace(fold, train_speakers=kept, valid_speakers=others)
        folds.append(fold)
    return tuple(folds)


def _dealt(
    utterances: Iterable[Grouped], speakers: dict[str, set[str]], k: int, config: FoldsConfig
) -> tuple[tuple[str, ...], ...]:
    """``folds.k`` groups of sessions or speakers."""
    if k > len(speakers):
        raise ConfigError(
            f"folds.k: {k} folds need {k} {config.by}s at least, and the corpus has {len(speakers)}; "
            f"lower it"
        )
    counts: Counter[tuple[str, str, str]] = Counter()
    for u in utterances:
        group = u.session if config.by == "session" else u.speaker
        counts[group, u.gender, u.emotion] += u.count if isinstance(u, UtteranceGroup) else 1
    return stratified_groups(counts, k, config.seed)


def _speakers_of_sessions(utterances: Iterable[Grouped]) -> dict[str, set[str]]:
    sessions: dict[str, set[str]] = {}
    for u in utterances:
        if not u.session:
            raise CorpusError(
                f"folds.valid: 'other_speaker' needs a session for every utterance, and {u.utterance_id!r} "
                f"has none; fill it in, or set folds.valid = 'share' or 'next'"
            )
        sessions.setdefault(u.session, set()).add(u.speaker)
    return sessions


def _by_split(utterances: Sequence[Grouped], config: FoldsConfig) -> tuple[Fold, ...]:
    if config.held_out:
        raise ConfigError(
            "folds.held_out: cannot be combined with folds.by = 'split'; remove it, or set "
            "folds.by = 'session' or 'speaker'"
        )
    missing = [u.utterance_id for u in utterances if u.split not in ("train", "valid", "test")]
    if missing:
        raise CorpusError.of_all(
            "folds.by = 'split' needs train, valid or test for every utterance; fill in the "
            "split, or set folds.by = 'session' or 'speaker':",
            [f"utterance {name!r} has none" for name in missing],
        )
    sides = {
        side: tuple({u.speaker for u in utterances if u.split == side})
        for side in ("train", "valid", "test")
    }
    if config.valid == "next" and not sides["valid"]:
        raise ConfigError(
            "folds.valid: 'next' with folds.by = 'split' needs utterances of split valid, and "
            "there are none; assign some speakers to valid, or set folds.valid = 'none'"
        )
    if config.protocol == "speaker_dependent":
        named: dict[Split, frozenset[str]] = {
            side: frozenset(u.utterance_id for u in utterances if u.split == side)
            for side in ("train", "valid", "test")
        }
        speakers = {u.utterance_id: u.speaker for u in utterances}
        return (fold_of_sides("split", "folds.by = 'split'", named, speakers, config),)
    return (
        Fold(
            name="split",
            train_speakers=sides["train"],
            valid_speakers=sides["valid"],
            test_speakers=sides["test"],
        ),
    )


def _speakers_by_group(utterances: Sequence[Grouped], config: FoldsConfig) -> dict[str, set[str]]:
    """The speakers of each group: of each session or corpus, or each speaker alone."""
    speakers: dict[str, set[str]] = {}
    missing: list[str] = []
    for u in utterances:
        groups = {"session": u.session, "corpus": source_of(u.speaker)}
        group = groups.get(config.by, u.speaker)
        if group:
            speakers.setdefault(group, set()).add(u.speaker)
        else:
            missing.append(u.utterance_id)
    if missing:
        raise CorpusError.of_all(
            f"folds.by = {config.by!r} needs a {config.by} for every utterance; fill it in, or "
            f"choose another folds.by:",
            [f"utterance {name!r} has none" for name in missing],
        )
    return speakers


def _check_held_out(
    held_out: Sequence[Sequence[str]], speakers: dict[str, set[str]], config: FoldsConfig
) -> None:
    known = ", ".join(sorted(speakers))
    if len(speakers) < 2:
        raise ConfigError(
            f"folds.by: the corpus has only one {config.by} ({known}), so the training set would be "
            f"empty; choose another folds.by"
        )
    if config.valid == "next" and len(held_out) < 2:
        raise ConfigError(
            "folds.valid: 'next' validates on the next group of folds.held_out, and there is only "
            "one; list a second one, or set folds.valid = 'none'"
        )
    problems: list[str] = []
    first_use: dict[str, int] = {}
    for i, group in enumerate(held_out):
        if not group:
            problems.append(f"folds.held_out[{i}]: is empty; name a {config.by}")
        for name in dict.fromkeys(group):
            if name not in speakers:
                problems.append(
                    f"folds.held_out[{i}]: there is no {config.by} {name!r}; known are {known}"
                )
            elif name in first_use:
                problems.append(
                    f"folds.held_out[{i}]: {name!r} is in folds.held_out[{first_use[name]}] as "
                    f"well; hold it out once"
                )
            first_use.setdefault(name, i)
    if problems:
        raise ConfigError.of_all("the folds cannot be planned:", problems)


def _union(speakers: dict[str, set[str]], groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({speaker for group in groups for speaker in speakers[group]}))
