"""The audio audit of a report, from what ``ingest`` measured. No audio is read."""

from __future__ import annotations

from gmp_atl_dist.audio_measures import AudioTable
from gmp_atl_dist.config import AuditConfig
from gmp_atl_dist.corpora.same_audio import same_samples
from gmp_atl_dist.report.audio_content import AudioContent, audit_of
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.readers import read_audio_measures, read_utterances

_UNLABELLED = "no label"


def audio_content(corpus: Artifact, config: AuditConfig) -> AudioContent | None:
    """The audit of an ``ingest`` artefact; None if an earlier release made it, which measured nothing."""
    stored = read_audio_measures(corpus)
    if stored is None:
        return None
    utterances = read_utterances(corpus)
    emotion_of = {u.utterance_id: u.emotion or _UNLABELLED for u in utterances}
    tables = (AudioTable.from_json(data, prefix) for prefix, data in stored)
    table = AudioTable.concatenated(tables).only(emotion_of)
    same = same_samples(utterances, (u.audio_sha256 for u in utterances))
    return audit_of(table, emotion_of, config, same.copies)
