"""The folds of a run, from the sealed corpus or from its listing, and what many folds cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.folds import Grouped, names_utterances, plan_folds, read_fold_lists
from gmp_atl_dist.corpora.splits.one_gender import one_gender
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import source_of
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.audio_paths import read_audio_paths
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import one_of_each_group, utterance_groups
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.sources import read_sources

MANY_FOLDS = 20
"""From so many folds on, a plan says what they cost."""


def folds_of_listing(
    config: RunConfig, utterances: Sequence[Grouped], paths: Mapping[str, str] | None = None
) -> tuple[Fold, ...]:
    """The folds that a run would make of listed utterances.

    Args:
        paths: of their audio by id, where ``utterances`` do not tell them.

    Raises:
        ConfigError: ``[folds]`` does not fit the corpus.
        CorpusError: the corpus or the lists do not give folds.
    """
    uri = Store.open(config.runtime.corpus).uri if config.folds.lists else ""
    folds = plan_folds(utterances, config.folds, read_fold_lists(config.folds, uri), paths)
    if config.warmup.gender_weight == 0 or not config.warms_up:
        return folds
    return tuple(replace(f, notes=(*f.notes, *one_gender(f, utterances))) for f in folds)


def folds_of_corpus(config: RunConfig, corpus: Artifact) -> tuple[Fold, ...]:
    """The folds of a sealed corpus.

    Unlabelled speech is on no side of a fold. Its speakers are added to each one, without people whom the
    fold tests or validates on.

    Raises:
        ConfigError: ``[folds]`` does not fit the corpus.
        CorpusError: the corpus or the lists do not give folds.
    """
    groups: Sequence[Grouped]
    if names_utterances(config.folds):
        groups = read_utterances(corpus)
    elif config.folds.k is not None:
        groups = utterance_groups(corpus)
    else:
        groups = one_of_each_group(corpus)
    unlabelled = {source.name: source for source in read_sources(corpus) if not source.labelled}
    if not unlabelled:
        paths = read_audio_paths(corpus) if config.folds.lists else None
        return folds_of_listing(config, groups, paths)
    # Each with the same person in a labelled source, as far as one is known.
    twins = {
        u.speaker: unlabelled[source_of(u.speaker)].twin(u.speaker)
        for u in groups
        if source_of(u.speaker) in unlabelled
    }
    folds = folds_of_listing(config, [u for u in groups if u.speaker not in twins])
    pretrain_alone = {source.name for source in config.corpora if not source.is_adapted_to}
    return tuple(_with_unlabelled(fold, twins, pretrain_alone) for fold in folds)


def _with_unlabelled(
    fold: Fold, twins: Mapping[str, str], pretrain_alone: AbstractSet[str]
) -> Fold:
    """The fold with the unlabelled speakers, without people whom it tests or validates on."""
    held_out = {*fold.test_speakers, *fold.valid_speakers}
    speakers = [speaker for speaker, twin in twins.items() if twin not in held_out]
    return replace(
        fold,
        unlabelled_speakers=tuple(s for s in speakers if source_of(s) not in pretrain_alone),
        pretrain_speakers=tuple(s for s in speakers if source_of(s) in pretrain_alone),
    )


def cost_warning(config: RunConfig, num_folds: int) -> str | None:
    """What ``MANY_FOLDS`` folds or more cost, as a number of trainings; None for fewer."""
    if num_folds < MANY_FOLDS:
        return None
    stages = [f"pretrain{i}" for i in range(1, config.pretrain.iterations + 1)]
    stages += [name for name in config.trained_sections if name != "pretrain"]
    advice = "" if config.folds.k is not None or config.folds.lists else "; folds.k = 5 makes five"
    return (
        f"{num_folds} folds of {len(stages)} trainings each ({', '.join(stages)}) are "
        f"{num_folds * len(stages)} trainings, and as many sets of features and labels as folds{advice}, and "
        f"folds.run runs some of them"
    )
