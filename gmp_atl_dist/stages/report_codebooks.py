"""The codebook section of the report: use, quality, a map of the centroids, example labels.

Labels are read one part at a time; only counts are kept.

Shape suffixes: K clusters, C classes, N label ids of a scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gmp_atl_dist import metrics
from gmp_atl_dist.partition import greedy_batches
from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.report.codebook_content import (
    CentroidMap,
    CodebookContent,
    FitContent,
    TimelineContent,
    TimelineScale,
)
from gmp_atl_dist.report.spectrogram import Spectrogram
from gmp_atl_dist.stages.report_errors import read_samples
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook, books_by_scale
from gmp_atl_dist.store.index import IndexRow, index_rows, read_index
from gmp_atl_dist.store.labels import UtteranceLabels, stream_labels
from gmp_atl_dist.store.readers import read_emotions

_ROWS_AT_ONCE = 2000
_MOST_TIMELINES = 4
_MOST_TIMELINE_FRAMES = 500
_DIGITS = 4


def codebook_contents(
    corpus: Artifact, labels: Artifact, books: Sequence[Codebook]
) -> tuple[CodebookContent, ...]:
    """Use and quality of every codebook over all labelled frames."""
    emotions = read_emotions(corpus)
    speakers = {name: i for i, name in enumerate(_speakers(corpus))}
    ends = [max(book.end for book in scale) for scale in books_by_scale(books)]
    emotion_CN = [np.zeros((len(emotions), end), np.int64) for end in ends]
    gender_CN = [np.zeros((len(GENDERS), end), np.int64) for end in ends]
    speaker_CN = [np.zeros((len(speakers), end), np.int64) for end in ends]
    for row, about in _labelled(corpus, labels):
        for scale, ids in enumerate(row.ids):
            counts_N = np.bincount(ids, minlength=ends[scale])
            # Unlabelled speech has none.
            if about.emotion in emotions:
                emotion_CN[scale][emotions.index(about.emotion)] += counts_N
            if about.gender in GENDERS:
                gender_CN[scale][GENDERS.index(about.gender)] += counts_N
            speaker_CN[scale][speakers[about.speaker]] += counts_N
    contents: list[CodebookContent] = []
    for number, scale in enumerate(books_by_scale(books)):
        for book in scale:
            own = slice(book.offset, book.end)
            by_emotion, by_gender = emotion_CN[number][:, own], gender_CN[number][:, own]
            contents.append(
                CodebookContent.of(
                    book.layer,
                    speaker_CN[number][:, own].sum(axis=0).tolist(),
                    scale=number,
                    group=book.group,
                    emotion=metrics.cluster_quality_from_joint(by_emotion)
                    if by_emotion.any()
                    else None,
                    gender=metrics.cluster_quality_from_joint(by_gender)
                    if by_gender.any()
                    else None,
                    speaker=metrics.cluster_quality_from_joint(speaker_CN[number][:, own]),
                    metric=book.metric,
                    origin=book.origin,
                    fingerprint=book.fingerprint,
                    fit=_fit(book),
                    map=_map(book, by_emotion, by_gender),
                )
            )
    return tuple(contents)


def timelines(
    corpus: Artifact, labels: Artifact, books: Sequence[Codebook]
) -> tuple[TimelineContent, ...]:
    """Labels of the first utterance of each of a few emotions; at most ten seconds each."""
    scales = books_by_scale(books)
    by_emotion: dict[str, TimelineContent] = {}
    emotions = read_emotions(corpus)
    most = min(_MOST_TIMELINES, len(emotions))
    for row, about in _labelled(corpus, labels):
        if about.emotion in emotions and about.emotion not in by_emotion:
            by_emotion[about.emotion] = TimelineContent(
                utterance_id=row.utterance_id,
                emotion=about.emotion,
                gender=about.gender,
                spectrogram=Spectrogram.of(
                    read_samples(corpus, about), min(row.num_frames, _MOST_TIMELINE_FRAMES)
                ),
                scales=tuple(
                    TimelineScale(
                        layer=scale[0].layer,
                        k=max(book.end for book in scale),
                        labels=tuple(ids[:_MOST_TIMELINE_FRAMES].tolist()),
                    )
                    for scale, ids in zip(scales, row.ids, strict=True)
                ),
            )
        if len(by_emotion) == most:
            break
    return tuple(by_emotion[emotion] for emotion in sorted(by_emotion))


def _speakers(corpus: Artifact) -> list[str]:
    return sorted(set(read_index(corpus)["speaker"].to_pylist()))


def _labelled(corpus: Artifact, labels: Artifact) -> Iterator[tuple[UtteranceLabels, IndexRow]]:
    """The labels of every utterance, with its row of the index."""
    index = read_index(corpus)
    for batch in greedy_batches(stream_labels(labels), _ROWS_AT_ONCE, lambda _: 1):
        known = index_rows(index, [row.utterance_id for row in batch])
        for row in batch:
            yield row, known[row.utterance_id]


def _fit(book: Codebook) -> FitContent | None:
    if book.fit is None:
        return None
    return FitContent(
        seed=book.fit.seed,
        frames=book.fit.frames,
        mean_squared_distance=book.fit.mean_squared_distance,
        iterations=book.fit.iterations,
        relocated=book.fit.relocated,
        stability=book.fit.stability,
    )


def _map(book: Codebook, emotion_CK: np.ndarray, gender_CK: np.ndarray) -> CentroidMap | None:
    """Two principal components of the centroids, by scikit-learn, whose signs are deterministic."""
    from sklearn.decomposition import PCA

    k, dim = book.centroids_KD.shape
    if min(k, dim) < 2 or not np.ptp(book.centroids_KD, axis=0).any():
        return None
    pca = PCA(2, svd_solver="full")
    points = pca.fit_transform(book.centroids_KD.astype(np.float64)).round(_DIGITS)
    return CentroidMap(
        # Adding 0 turns -0 into 0.
        points=tuple((x, y) for x, y in (points + 0.0).tolist()),
        emotions=_most_frequent(emotion_CK),
        genders=_most_frequent(gender_CK),
    )


def _most_frequent(counts_CK: np.ndarray) -> tuple[int | None, ...]:
    used_K = counts_CK.sum(axis=0) > 0
    winners = counts_CK.argmax(axis=0).tolist()
    return tuple(c if used else None for c, used in zip(winners, used_K.tolist(), strict=True))
