"""What the report says of the corpus and of its sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import RunConfig, SourceConfig
from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER, StoredUtterance, source_of
from gmp_atl_dist.report.corpus_content import CorpusContent, DroppedItem, SourceContent
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_emotions, read_utterances


def corpus_content(config: RunConfig, corpus: Artifact) -> CorpusContent:
    """Counts of a corpus: of several, those of the labelled ones together, and of each one."""
    utterances = read_utterances(corpus)
    adapters = [config.corpus.adapter]
    sources: list[SourceContent] = []
    if config.corpora:
        of_source: dict[str, list[StoredUtterance]] = {s.name: [] for s in config.corpora}
        for u in utterances:
            of_source[source_of(u.utterance_id)].append(u)
        sources = [_source_content(s, of_source[s.name]) for s in config.corpora]
        labelled = [s for s in config.corpora if s.is_labelled]
        adapters = list(dict.fromkeys(s.adapter for s in labelled))
        names = {s.name for s in labelled}
        utterances = tuple(u for u in utterances if source_of(u.utterance_id) in names)
    return CorpusContent(
        adapter=", ".join(adapters),
        num_utterances=len(utterances),
        hours=sum(u.num_samples for u in utterances) / SAMPLE_RATE_HZ / 3600,
        num_speakers=len({u.speaker for u in utterances}),
        per_class=counts_by_name(read_emotions(corpus), [u.emotion for u in utterances]),
        per_gender=per_gender(utterances),
        dropped=tuple(DroppedItem(item=p.item, reason=p.reason) for p in corpus.manifest.problems),
        sources=tuple(sources),
    )


def _source_content(config: SourceConfig, utterances: Sequence[StoredUtterance]) -> SourceContent:
    return SourceContent(
        name=config.name,
        role=config.role,
        language=config.language,
        licence=config.licence,
        weight=config.weight,
        num_utterances=len(utterances),
        hours=sum(u.num_samples for u in utterances) / SAMPLE_RATE_HZ / 3600,
        num_speakers=len({u.speaker for u in utterances}),
    )


def per_gender(utterances: Sequence[StoredUtterance]) -> dict[str, int]:
    """Utterances of each gender; those without one are counted where there are some."""
    genders = [u.gender for u in utterances]
    names = (*GENDERS, UNKNOWN_GENDER) if UNKNOWN_GENDER in genders else GENDERS
    return counts_by_name(names, genders)


def counts_by_name(names: Sequence[str], values: Sequence[str]) -> dict[str, int]:
    """How often each name occurs."""
    counted = Counter(values)
    return {name: counted[name] for name in names}
