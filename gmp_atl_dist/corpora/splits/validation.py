"""Who validates: a share of the training speakers, or the others in the sessions of the test speakers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.seeding import keyed_seed


def with_share(
    fold: Fold, genders: Mapping[str, str], owners: Mapping[str, str], config: FoldsConfig
) -> Fold:
    """Set ``folds.valid_share`` of the training speakers aside, at least one; as many of each gender.

    The choice depends on the seed and on the names of the fold's training speakers alone.

    Args:
        genders: speaker -> gender.
        owners: utterance id -> speaker, for a fold that names utterances.

    Raises:
        ConfigError: the fold has validation speakers already, or only one training speaker.
    """
    if fold.valid_speakers:
        raise ConfigError(
            f"folds.valid: 'share', but {fold.name} has {len(fold.valid_speakers)} validation speakers of "
            f"its own; set folds.valid = 'next' to use them"
        )
    train = fold.train_speakers
    if len(train) < 2:
        raise ConfigError(
            f"folds.valid: 'share' takes one training speaker at least, and {fold.name} has only "
            f"{', '.join(train)}; set folds.valid = 'none'"
        )
    count = min(max(1, round(config.valid_share * len(train))), len(train) - 1)
    waiting: dict[str, list[str]] = {}
    for speaker in sorted(train, key=lambda s: keyed_seed("folds.valid", config.seed, s)):
        waiting.setdefault(genders.get(speaker, ""), []).append(speaker)
    chosen: set[str] = set()
    while len(chosen) < count:
        # The gender with the largest share still to train gives the next one.
        largest = max(sorted(waiting), key=lambda g: len(waiting[g]))
        chosen.add(waiting[largest].pop(0))
    named = fold.utterances
    ids = () if named is None else named.train
    valid = frozenset(name for name in ids if owners[name] in chosen)
    return replace(
        fold,
        train_speakers=tuple(s for s in train if s not in chosen),
        valid_speakers=tuple(sorted(chosen)),
        utterances=None
        if named is None
        else replace(named, train=named.train - valid, valid=valid),
    )


def other_speakers(test: Iterable[str], sessions: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The other speakers in the sessions of the test speakers.

    Args:
        sessions: session -> its speakers.

    Raises:
        CorpusError: the test speakers were alone.
    """
    tested = set(test)
    others = {
        speaker
        for speakers in sessions.values()
        if speakers & tested
        for speaker in speakers - tested
    }
    if not others:
        raise CorpusError(
            f"folds.valid: 'other_speaker', but nobody else is in a session of {', '.join(sorted(tested))}; "
            f"set folds.valid = 'share' or 'next'"
        )
    return tuple(sorted(others))
