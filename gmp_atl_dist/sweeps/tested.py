"""Whether all arms are tested on the same utterances; otherwise their scores cannot be compared.

Before anything runs, the labels of the corpus tell (no audio is read). After ``ingest`` the sealed corpora
are compared once more, because a bad recording is known only then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gmp_atl_dist.config import RunConfig, digest, hashed
from gmp_atl_dist.config.sweep import Sweep
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import StoredUtterance, Utterance
from gmp_atl_dist.scheduling.walks import MethodRun
from gmp_atl_dist.stages.planned_folds import folds_of_listing
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

Tested = Mapping[str, frozenset[tuple[str, str]]]
"""By fold: (utterance, emotion)."""

_NOT_TESTED = {"valid", "valid_share", "protocol"}
"""Keys of ``[folds]`` that choose no test utterance."""


def check_listed_test_sets(sweep: Sweep, source: Store) -> tuple[Fold, ...] | None:
    """Compare the folds that the labels of the corpus give each arm; the folds of the first one.

    None with several corpora: their test sets are compared after ``ingest`` alone.

    Raises:
        ConfigError: two arms have other test sets; names them, and how they differ.
        CorpusError: the labels cannot be read, or give no folds.
    """
    first_seed = [run for run in sweep.runs if run.seed == sweep.seeds[0]]
    if any(run.config.corpora for run in first_seed):
        return None
    by_keys: dict[str, Tested] = {}
    folds_of_first: tuple[Fold, ...] | None = None
    sets: dict[str, Tested] = {}
    for run in first_seed:
        keys = _deciding_keys(run.config)
        if keys not in by_keys:
            folds, by_keys[keys] = _of_listing(run.config, source)
            folds_of_first = folds_of_first or folds
        sets[run.arm] = by_keys[keys]
    _refuse_differences(sweep.file, sets)
    return folds_of_first


def check_sealed_test_sets(sweep: Sweep, runs: Mapping[str, MethodRun]) -> None:
    """Compare the test sets of prepared runs, by arm.

    Raises:
        ConfigError: two arms have other test sets.
    """
    sets: dict[str, Tested] = {}
    by_keys: dict[str, Tested] = {}
    for arm, run in runs.items():
        corpus = run.shared.get("combine") or run.shared["ingest"]
        keys = digest([corpus.identity, _deciding_keys(run.config)])
        if keys not in by_keys:
            utterances = read_utterances(corpus)
            by_keys[keys] = {fold.name: _tested(fold, utterances) for fold in run.folds}
        sets[arm] = by_keys[keys]
    _refuse_differences(sweep.file, sets)


def _deciding_keys(config: RunConfig) -> str:
    """Digest of all that a test set follows from."""
    folds = hashed(config.folds, exclude=_NOT_TESTED)
    sources = [hashed(source) for source in config.corpora]
    return digest(
        [hashed(config.corpus), sources, folds, config.folds.protocol == "speaker_dependent"]
    )


def _of_listing(config: RunConfig, source: Store) -> tuple[tuple[Fold, ...], Tested]:
    listing = read_corpus(config.corpus, source, gender_needed=config.needs_gender)
    folds = folds_of_listing(config, listing.utterances)
    return folds, {fold.name: _tested(fold, listing.utterances) for fold in folds}


def _tested(
    fold: Fold, utterances: Iterable[Utterance | StoredUtterance]
) -> frozenset[tuple[str, str]]:
    ids = fold.utterance_ids("test")
    return frozenset(
        (u.utterance_id, u.emotion)
        for u in utterances
        if u.speaker in fold.test_speakers and (ids is None or u.utterance_id in ids)
    )


def _refuse_differences(file: str, sets: Mapping[str, Tested]) -> None:
    (first, expected), *others = sets.items()
    problems = [
        f"arms {first!r} and {arm!r} are not tested on the same utterances: {_difference(expected, found)}"
        for arm, found in others
        if found != expected
    ]
    if problems:
        raise ConfigError.of_all(
            f"{file}: scores over different test sets cannot be compared; give all arms the same corpus and "
            f"the same [folds]:",
            problems,
        )


def _difference(expected: Tested, found: Tested) -> str:
    if set(expected) != set(found):
        return f"{_listed(expected)} and {_listed(found)}"
    for fold, utterances in expected.items():
        differing = sorted(utterances ^ found[fold])
        if differing:
            (utterance, emotion), count = differing[0], len(differing)
            return f"{count} differ in {fold}, such as {utterance!r} ({emotion})"
    return "they differ"


def _listed(names: Iterable[str]) -> str:
    shown: Sequence[str] = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
