"""The page of a run, and the audio of shown errors: what the sealed page must not have.

The sealed page depends on the science alone. This one adds the run's name, machine, durations and memory,
and, if ``runtime.report_audio`` allows it, the audio of the shown errors.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.stages.report import JSON_NAME
from gmp_atl_dist.stages.report_errors import SHOWN_S, read_samples
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.runs import RunRecord


def run_page(report: Artifact, record: RunRecord, *, audio: bool = False) -> bytes:
    """The page of ``record``, whose sealed report is ``report``, as UTF-8.

    Args:
        audio: put the recordings of the shown errors into the page, cut to some seconds.
    """
    from gmp_atl_dist.report.html import render_html

    content = ReportContent.model_validate_json(report.read_file(JSON_NAME))
    clips: Mapping[str, bytes] = {}
    if audio:
        clips = clips_of(content, report.store, record, {e.utterance_id for e in content.errors})
    return render_html(content, record, clips=clips).encode()


def clips_of(
    content: ReportContent, store: Store, record: RunRecord, utterance_ids: Collection[str]
) -> Mapping[str, bytes]:
    """FLAC by utterance id, cut to some seconds; none if the corpus is not in the store any more.

    Args:
        content: of a report.
        record: of the run that made the report.
        utterance_ids: other ids than those of its corpus are ignored.
    """
    corpus = _corpus(content, store, record)
    if corpus is None:
        return {}
    return {
        u.utterance_id: _flac(read_samples(corpus, u)[: int(SHOWN_S * SAMPLE_RATE_HZ)])
        for u in read_utterances(corpus)
        if u.utterance_id in utterance_ids
    }


def _corpus(content: ReportContent, store: Store, record: RunRecord) -> Artifact | None:
    for stage in record.stages:
        if stage.kind not in content.artefacts or stage.kind == "backbone":
            continue
        found = find_artifact(store, ArtifactKey(stage.kind, stage.fingerprint))
        # A run may have been repeated with other recordings; the audio must be that of this report.
        if found is not None and found.identity == content.artefacts[stage.kind]:
            return found
    return None


def _flac(pcm16: NDArray[np.int16]) -> bytes:
    out = io.BytesIO()
    sf.write(out, pcm16, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return out.getvalue()
