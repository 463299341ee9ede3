"""Single predictions in the report: all of them in columns, and the most confident errors.

Audio is read for the shown utterances only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.records import StoredUtterance
from gmp_atl_dist.report.codebook_content import TimelineScale
from gmp_atl_dist.report.predictions import DIGITS, ErrorContent, PredictionsContent
from gmp_atl_dist.report.spectrogram import FRAMES_PER_S, Spectrogram
from gmp_atl_dist.stages.evaluate import Prediction, read_predictions
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import books_by_scale, read_codebooks
from gmp_atl_dist.store.labels import LabelReader
from gmp_atl_dist.store.readers import InPart, read_audio_rows, read_utterances

MOST_ERRORS = 20
SHOWN_S = 5.0
"""Of each error: its spectrogram, labels and audio."""
_BANDS = 32
_MOST_PREDICTIONS = 8000

FoldPredictions = Sequence[tuple[str, Prediction]]
"""(fold, prediction) pairs."""


def predictions_of(folds: Sequence[FoldArtifacts]) -> list[tuple[str, Prediction]]:
    """All test predictions with their fold, fold by fold."""
    return [(f.fold.name, p) for f in folds for p in read_predictions(f.artifact("evaluate"))]


def predictions_content(found: FoldPredictions, classes: Sequence[str]) -> PredictionsContent:
    """The predictions in columns; empty if there are more than a page can hold."""
    if len(found) > _MOST_PREDICTIONS:
        return PredictionsContent()
    return PredictionsContent(
        utterances=tuple(p.utterance_id for _, p in found),
        folds=tuple(fold for fold, _ in found),
        speakers=tuple(p.speaker for _, p in found),
        genders=tuple(p.gender for _, p in found),
        true=tuple(classes.index(p.emotion) for _, p in found),
        predicted=tuple(classes.index(p.predicted) for _, p in found),
        probabilities=tuple(tuple(map(_rounded, p.probabilities)) for _, p in found),
    )


def worst_errors(found: FoldPredictions, classes: Sequence[str]) -> list[tuple[str, Prediction]]:
    """The wrong predictions with the largest probability of the wrong class. Ties: by utterance id."""
    wrong = [(fold, p) for fold, p in found if p.predicted != p.emotion]

    def confidence(item: tuple[str, Prediction]) -> tuple[float, str, str]:
        fold, p = item
        return (-_rounded(p.probabilities[classes.index(p.predicted)]), p.utterance_id, fold)

    return sorted(wrong, key=confidence)[:MOST_ERRORS]


def error_contents(
    found: FoldPredictions,
    classes: Sequence[str],
    corpus: Artifact,
    labelled: Mapping[str, FoldArtifacts],
) -> tuple[ErrorContent, ...]:
    """The worst errors with their spectrograms.

    Args:
        labelled: folds by name whose frame labels include the test speakers.
    """
    shown = worst_errors(found, classes)
    by_id = {u.utterance_id: u for u in read_utterances(corpus)}
    readers: dict[str, LabelReader] = {}
    contents = []
    for fold, p in shown:
        about = by_id[p.utterance_id]
        contents.append(
            ErrorContent(
                utterance_id=p.utterance_id,
                fold=fold,
                speaker=p.speaker,
                gender=p.gender,
                true=p.emotion,
                predicted=p.predicted,
                probability=_rounded(p.probabilities[classes.index(p.predicted)]),
                of_true=_rounded(p.probabilities[classes.index(p.emotion)]),
                seconds=about.num_samples / SAMPLE_RATE_HZ,
                spectrogram=Spectrogram.of(
                    read_samples(corpus, about),
                    min(num_frames(about.num_samples), int(SHOWN_S * FRAMES_PER_S)),
                    _BANDS,
                ),
                scales=_labels(about, labelled.get(fold), readers),
            )
        )
    return tuple(contents)


def read_samples(corpus: Artifact, about: InPart) -> np.ndarray:
    """int16 samples [num_samples] of one utterance."""
    table = read_audio_rows(corpus, about.part, about.row, about.row + 1, columns=["pcm16"])
    return np.frombuffer(table["pcm16"][0].as_py(), dtype="<i2")


def _labels(
    about: StoredUtterance, made: FoldArtifacts | None, readers: dict[str, LabelReader]
) -> tuple[TimelineScale, ...]:
    if made is None:
        return ()
    books = read_codebooks(made.artifact("cluster"))
    reader = readers.setdefault(made.fold.name, LabelReader(made.artifact("label"), books))
    return tuple(
        TimelineScale(
            layer=scale[0].layer,
            k=max(book.end for book in scale),
            labels=tuple(ids[: int(SHOWN_S * FRAMES_PER_S)].tolist()),
        )
        for scale, ids in zip(books_by_scale(books), reader.ids(about.utterance_id), strict=True)
    )


def _rounded(probability: float) -> float:
    return round(float(probability), DIGITS)
