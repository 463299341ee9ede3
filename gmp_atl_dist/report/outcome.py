"""The scores of one set of predictions, with intervals: a part of the schema of ``report.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import model_validator

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import Intervals, Scores
from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.protocol import Content
from gmp_atl_dist.statistics.bootstrap import MIN_SPEAKERS as MIN_SPEAKERS

Matrix = tuple[tuple[Count, ...], ...]

TOLERANCE = 1e-9
"""Scores may be rounded differently on another machine."""


class Outcome(Content):
    """The scores of one set of predictions. ``confusion`` is (K, K) counts; rows are the truth.

    ``intervals`` resample utterances, ``speaker_intervals`` whole speakers. The latter are None if
    there are too few speakers.
    """

    scores: Scores
    intervals: Intervals
    speaker_intervals: Intervals | None = None
    confusion: Matrix

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        try:
            expected = metrics.scores_from_confusion(self.confusion)
        except ValueError as e:
            raise ValueError(f"confusion: {e}") from None
        given = self.scores
        if given.support != expected.support or not np.allclose(
            [given.war, given.uar, given.macro_f1, given.weighted_f1, *given.recalls],
            [
                expected.war,
                expected.uar,
                expected.macro_f1,
                expected.weighted_f1,
                *expected.recalls,
            ],
            rtol=0,
            atol=TOLERANCE,
        ):
            raise ValueError(f"scores are not those of the confusion matrix, which are {expected}")
        return self

    @classmethod
    def of(
        cls,
        true: ArrayLike,
        predicted: ArrayLike,
        num_classes: int,
        *,
        speakers: Sequence[str],
        samples: int,
        confidence: float,
        seed: int,
    ) -> Outcome:
        """Score predictions: one class index and one speaker per utterance.

        Raises:
            ValueError: as :func:`gmp_atl_dist.metrics.bootstrap_interval`.
        """
        confusion = metrics.confusion_matrix(true, predicted, num_classes)
        by_speaker = None
        if len(set(speakers)) >= MIN_SPEAKERS:
            by_speaker = metrics.bootstrap_interval_by_group(
                true,
                predicted,
                speakers,
                num_classes,
                samples=samples,
                confidence=confidence,
                seed=seed,
            )
        return cls(
            scores=metrics.scores_from_confusion(confusion),
            intervals=metrics.bootstrap_interval(
                true, predicted, num_classes, samples=samples, confidence=confidence, seed=seed
            ),
            speaker_intervals=by_speaker,
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )
