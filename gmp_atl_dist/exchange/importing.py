"""Imports fairseq's files as artefacts of kinds ``extract`` and ``label``.

Values do not change by a bit. Utterances are sorted by id, so an export gives the same bytes only if
the files were in that order.

Shape suffixes: T frames of one utterance, M of all, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import Json
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.exchange.layout import (
    FairseqFiles,
    fewest_samples,
    open_npy,
    read_ids,
    read_labels,
    read_lengths,
    sha256_of,
)
from gmp_atl_dist.partition import greedy_batches
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.features import UtteranceFrames, put_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.labels import IMPORTED, UtteranceLabels, narrow, put_labels
from gmp_atl_dist.store.layout import claim_layout
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

_VERSION = 2
_PART_FRAMES = 30_000

Spans = Mapping[str, slice]
"""The rows of each utterance in the files, in the order of utterance ids."""


@dataclass(frozen=True)
class Imported:
    """The artefacts of an import."""

    features: Artifact
    labels: Artifact | None


def import_features(store: Store, files: FairseqFiles, layer: int) -> Imported:
    """Import features and, if there is a ``.km``, labels. Artefacts in the store are reused.

    Raises:
        ArtifactError: a file is damaged or does not match the others; names file, line and value.
    """
    frames = read_lengths(files.lengths)
    x_MD = open_npy(files.npy)
    if sum(frames) != len(x_MD):
        raise ArtifactError(
            f"{files.lengths}: {len(frames)} lines add up to {sum(frames)} frames, but {files.npy} "
            f"has {len(x_MD)} rows; give two files of one run"
        )
    ids = read_ids(files, frames)
    labels_M = None if files.km is None else read_labels(files.km, files.lengths, frames)
    spans = _spans(ids, frames)

    imported: dict[str, Json] = {"npy": sha256_of(files.npy), "len": sha256_of(files.lengths)}
    # Without a .tsv the ids come from the name of the file, so the name is part of the content.
    imported |= {"name": files.npy.stem} if files.tsv is None else {"tsv": sha256_of(files.tsv)}
    features = _artifact(
        store,
        "extract",
        {"imported": imported, "layer": layer},
        {},
        lambda out: _put_features(out, files, layer, x_MD, spans),
    )
    if files.km is None or labels_M is None:
        return Imported(features, None)
    labels = _artifact(
        store,
        "label",
        {"imported": {"km": sha256_of(files.km)}},
        {"features": features.identity},
        lambda out: _put_labels(out, labels_M, spans),
    )
    return Imported(features, labels)


def _spans(ids: Sequence[str], frames: Sequence[int]) -> Spans:
    ends = np.cumsum(frames).tolist()
    rows = {
        utterance_id: slice(end - count, end)
        for utterance_id, count, end in zip(ids, frames, ends, strict=True)
    }
    return dict(sorted(rows.items()))


def _artifact(
    store: Store,
    kind: str,
    science: Mapping[str, Json],
    inputs: Mapping[str, str],
    put_parts: Callable[[ArtifactWriter], None],
) -> Artifact:
    """The artefact of these files. Its parts are written if it is not sealed yet."""
    key = ArtifactKey.of(kind, _VERSION, science, inputs)
    existing = find_artifact(store, key)
    if existing is not None:
        return existing
    out = ArtifactWriter(store, key)
    put_parts(out)
    return out.seal(version=_VERSION, science=science, inputs=inputs)


def _parts(spans: Spans) -> Iterator[tuple[str, dict[str, slice]]]:
    """Name and utterances of each part, planned from the data alone."""
    batches = greedy_batches(spans.items(), _PART_FRAMES, lambda item: item[1].stop - item[1].start)
    for number, batch in enumerate(batches):
        yield f"import-{number:05d}", dict(batch)


def _put_features(
    out: ArtifactWriter, files: FairseqFiles, layer: int, x_MD: np.ndarray, spans: Spans
) -> None:
    problems: list[str] = []
    for name, part in _parts(spans):
        rows = [UtteranceFrames(utterance_id, x_MD[span]) for utterance_id, span in part.items()]
        problems += [problem for u in rows for problem in _not_finite(u, part[u.utterance_id])]
        if not problems:
            # Not before: a file that is refused leaves an empty root empty.
            claim_layout(out.store)
            samples = sum(fewest_samples(len(u.frames_TD)) for u in rows)
            put_features(out, name, layer, rows, audio_s=samples / SAMPLE_RATE_HZ)
    if problems:
        raise ArtifactError.of_all(
            f"{files.npy}: features must be finite; extract these utterances again:", problems
        )


def _not_finite(utterance: UtteranceFrames, span: slice) -> Iterator[str]:
    """A message about the first value of the utterance that is not finite, if there is one."""
    bad_TD = ~np.isfinite(utterance.frames_TD)
    if bad_TD.any():
        t, d = np.argwhere(bad_TD)[0].tolist()
        yield (
            f"row {span.start + t}, column {d} is {utterance.frames_TD[t, d]}: frame {t} of "
            f"utterance {utterance.utterance_id!r}"
        )


def _put_labels(out: ArtifactWriter, labels_M: np.ndarray, spans: Spans) -> None:
    end = int(labels_M.max(initial=0)) + 1
    for name, part in _parts(spans):
        rows = [
            UtteranceLabels(utterance_id, (IMPORTED,), (narrow(labels_M[span], end),))
            for utterance_id, span in part.items()
        ]
        put_labels(out, name, rows)
