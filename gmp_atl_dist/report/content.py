"""The schema of ``report.json``, from which the HTML page is rendered.

Related numbers are checked against each other: scores against their confusion matrix, the pooled
matrix against those of the folds. So a report cannot contradict itself. It contains no time, host or
environment: the same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, JsonValue, model_validator

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import Intervals, Scores, Spread
from gmp_atl_dist.report.codebook_content import CodebookContent, Count, TimelineContent
from gmp_atl_dist.report.protocol import Content, Protocol, SelectionRule

if TYPE_CHECKING:
    from gmp_atl_dist.config import Json
else:
    Json = JsonValue  # pydantic cannot build a validator from a recursive alias of strings

Matrix = tuple[tuple[Count, ...], ...]
Point = tuple[int, float]
"""(step, value) of a learning curve."""
Curves = dict[str, dict[str, tuple[Point, ...]]]
"""Stage -> metric -> points."""

LARGEST_CLUSTER_SHARE = "largest_cluster_share"
"""A metric of pretraining: the accuracy of always predicting the most frequent label."""

_MIN_SPEAKERS = 5
"""Resampling fewer speakers is meaningless: IEMOCAP's two per fold have only three resamples."""

_TOLERANCE = 1e-9


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
            atol=_TOLERANCE,
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
        if len(set(speakers)) >= _MIN_SPEAKERS:
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


class Selection(Content):
    """The selected epoch and the rule. ``value`` is the value of the metric ``measure`` at it."""

    rule: SelectionRule
    epoch: Annotated[int, Field(ge=1)]
    num_epochs: Annotated[int, Field(ge=1)]
    measure: str | None = None
    value: float | None = None


class FoldContent(Content):
    """One fold: its speakers, its scores, and the results of its stages."""

    name: str
    train_speakers: tuple[str, ...]
    valid_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...]
    num_train: Count
    num_valid: Count = 0
    num_test: Count
    outcome: Outcome
    selection: Selection
    curves: Curves = Field(default_factory=dict)
    codebooks: tuple[CodebookContent, ...] = ()
    timelines: tuple[TimelineContent, ...] = ()
    artefacts: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _all_tested(self) -> Self:
        if self.outcome.scores.num_utterances != self.num_test:
            raise ValueError(
                f"fold {self.name!r}: {self.outcome.scores.num_utterances} predictions for "
                f"{self.num_test} test utterances; every one needs a prediction"
            )
        return self


class PooledContent(Content):
    """The scores of all folds' predictions as one set, and the averages of the folds' scores."""

    outcome: Outcome
    war: Spread
    uar: Spread

    @classmethod
    def of(cls, outcome: Outcome, folds: Sequence[Outcome]) -> PooledContent:
        """``outcome`` belongs to all predictions together, ``folds`` to the single folds."""
        return cls(
            outcome=outcome,
            war=metrics.spread([fold.scores.war for fold in folds]),
            uar=metrics.spread([fold.scores.uar for fold in folds]),
        )


class DroppedItem(Content):
    """A recording that was left out, and the reason."""

    item: str
    reason: str


class CorpusContent(Content):
    """The corpus after classes were merged and bad recordings were dropped."""

    adapter: str
    num_utterances: Count
    hours: float
    num_speakers: Count
    per_class: dict[str, Count]
    per_gender: dict[str, Count]
    dropped: tuple[DroppedItem, ...] = ()


class ReportContent(Content):
    """A complete report. ``artefacts`` are shared by all folds: kind -> fingerprint."""

    title: str
    protocol: Protocol
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    folds: Annotated[tuple[FoldContent, ...], Field(min_length=1)]
    pooled: PooledContent
    corpus: CorpusContent
    configuration: dict[str, Json]
    seeds: dict[str, int]
    versions: dict[str, str]
    stages: tuple[str, ...] = ()
    """Names of the stages in the order of the method."""
    artefacts: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        names = [fold.name for fold in self.folds]
        if len(set(names)) != len(names):
            raise ValueError(f"two folds share a name: {names}")
        for fold in self.folds:
            if len(fold.outcome.confusion) != len(self.classes):
                raise ValueError(
                    f"fold {fold.name!r}: its confusion matrix has {len(fold.outcome.confusion)} "
                    f"rows for the {len(self.classes)} classes {list(self.classes)}"
                )
            if (fold.selection.rule == "test") != (self.protocol.name == "peek"):
                raise ValueError(
                    f"fold {fold.name!r}: an epoch selected by {fold.selection.rule!r} under "
                    f"protocol {self.protocol.name!r}; 'test' and 'peek' go together"
                )
        outcomes = [fold.outcome for fold in self.folds]
        summed = np.sum([outcome.confusion for outcome in outcomes], axis=0)
        if not np.array_equal(summed, self.pooled.outcome.confusion):
            raise ValueError(
                f"pooled: the confusion matrix is not the sum of those of the folds, {summed.tolist()}"
            )
        averaged = PooledContent.of(self.pooled.outcome, outcomes)
        if not (
            _almost_equal(averaged.war, self.pooled.war)
            and _almost_equal(averaged.uar, self.pooled.uar)
        ):
            raise ValueError(
                f"pooled: not the averages of the folds, {averaged.war} and {averaged.uar}"
            )
        return self

    @property
    def curves_by_stage(self) -> dict[str, dict[str, dict[str, tuple[Point, ...]]]]:
        """Stage -> metric -> fold -> points. The folds of a metric are drawn in one panel."""
        stages: dict[str, dict[str, dict[str, tuple[Point, ...]]]] = {}
        for fold in self.folds:
            for stage, curves in fold.curves.items():
                for metric, points in curves.items():
                    stages.setdefault(stage, {}).setdefault(metric, {})[fold.name] = points
        return stages


def _almost_equal(a: Spread, b: Spread) -> bool:
    """Equal up to the last digits, which may be rounded differently on another machine."""
    return (
        (a.n, a.std is None) == (b.n, b.std is None)
        and abs(a.mean - b.mean) <= _TOLERANCE
        and abs((a.std or 0.0) - (b.std or 0.0)) <= _TOLERANCE
    )
