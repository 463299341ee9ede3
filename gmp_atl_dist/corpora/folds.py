"""Plans folds over sessions, speakers, corpora, or a given split.

A group is a session, a speaker, or one of several corpora. Each fold tests on one held-out group, or on
one list of groups, and trains on all others. :class:`~gmp_atl_dist.records.Fold` refuses a speaker in two
sets of one fold, so two sessions that share a speaker cannot leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import Fold, source_of


class Grouped(Protocol):
    """What folds are planned from: an utterance that is listed, or one that is stored."""

    @property
    def utterance_id(self) -> str: ...

    @property
    def speaker(self) -> str: ...

    @property
    def session(self) -> str: ...

    @property
    def split(self) -> str: ...


def plan_folds(utterances: Sequence[Grouped], config: FoldsConfig) -> tuple[Fold, ...]:
    """The folds of ``config``, in order, with the names ``fold1``, ``fold2``, ... or ``split``.

    Raises:
        ConfigError: held-out groups are unknown, duplicate or too few, or ``folds.run`` names a
            fold that does not exist.
        CorpusError: a speaker would be in two sets of a fold, a set is empty, or utterances lack
            the session or split that ``folds.by`` needs.
    """
    if not utterances:
        raise CorpusError("the corpus has no utterance, so there are no folds; check the corpus")
    folds = _by_split(utterances, config) if config.by == "split" else _by_group(utterances, config)
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
    held_out = config.held_out or tuple((name,) for name in sorted(speakers))
    _check_held_out(held_out, speakers, config)
    folds: list[Fold] = []
    for i, test in enumerate(held_out):
        # Cyclic: the validation group of the last fold is the first group.
        valid = held_out[(i + 1) % len(held_out)] if config.valid == "next" else ()
        train = [name for name in speakers if name not in test and name not in valid]
        folds.append(
            Fold(
                name=f"fold{i + 1}",
                train_speakers=_union(speakers, train),
                valid_speakers=_union(speakers, valid),
                test_speakers=_union(speakers, test),
            )
        )
    return tuple(folds)


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
