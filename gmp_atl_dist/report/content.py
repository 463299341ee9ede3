"""Everything a report shows: the schema of ``report.json``, from which the page is drawn.

Figures that belong together are checked against one another (scores against their confusion matrix,
the pooled matrix against the folds'), so that a report cannot contradict itself. No clock, host or
environment enters: the same run gives the same bytes.
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
"""Stage -> measure -> points."""

LARGEST_CLUSTER_SHARE = "largest_cluster_share"
"""A measure of pretraining: the accuracy of who always says the commonest label."""

_FEWEST_SPEAKERS = 5
"""Resampling fewer speakers says next to nothing: IEMOCAP's two a fold have three resamples."""

_TOLERANCE = 1e-9


class Outcome(Content):
    """One set of predictions, scored. ``confusion`` is (K, K) counts, rows the truth.

    ``intervals`` resample utterances, ``speaker_intervals`` whole speakers; the latter are None
    where speakers are too few.
    """

    scores: Scores
    intervals: Intervals
    speaker_intervals: Intervals | None = None
    confusion: Matrix

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        try:
            found = metrics.scores_from_confusion(self.confusion)
        except ValueError as e:
            raise ValueError(f"confusion: {e}") from None
        mine, theirs = self.scores, found
        if mine.support != theirs.support or not np.allclose(
            [mine.war, mine.uar, mine.macro_f1, mine.weighted_f1, *mine.recalls],
            [theirs.war, theirs.uar, theirs.macro_f1, theirs.weighted_f1, *theirs.recalls],
            rtol=0,
            atol=_TOLERANCE,
        ):
            raise ValueError(f"scores are not those of the confusion matrix; that has {found}")
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
        """Score predictions, one class index and speaker an utterance.

        Raises:
            ValueError: as :func:`gmp_atl_dist.metrics.bootstrap_interval`.
        """
        confusion = metrics.confusion_matrix(true, predicted, num_classes)
        by_speaker = None
        if len(set(speakers)) >= _FEWEST_SPEAKERS:
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
    """Which epoch was kept, and by what rule; ``value`` is what ``measure`` was at it."""

    rule: SelectionRule
    epoch: Annotated[int, Field(ge=1)]
    num_epochs: Annotated[int, Field(ge=1)]
    measure: str | None = None
    value: float | None = None


class FoldContent(Content):
    """One fold, from who was in it to what its stages did."""

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
    """All folds' predictions scored as one set, and the folds' scores averaged."""

    outcome: Outcome
    war: Spread
    uar: Spread

    @classmethod
    def of(cls, outcome: Outcome, folds: Sequence[Outcome]) -> PooledContent:
        """``outcome`` is that of all predictions together, ``folds`` those it was pooled from."""
        return cls(
            outcome=outcome,
            war=metrics.spread([fold.scores.war for fold in folds]),
            uar=metrics.spread([fold.scores.uar for fold in folds]),
        )


class DroppedItem(Content):
    """A recording that was left out, and why."""

    item: str
    reason: str


class CorpusContent(Content):
    """What was used, after merging classes and dropping bad recordings."""

    adapter: str
    num_utterances: Count
    hours: float
    num_speakers: Count
    per_class: dict[str, Count]
    per_gender: dict[str, Count]
    dropped: tuple[DroppedItem, ...] = ()


class ReportContent(Content):
    """A whole report. ``artefacts`` are those shared by all folds, kind -> fingerprint."""

    title: str
    protocol: Protocol
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    folds: Annotated[tuple[FoldContent, ...], Field(min_length=1)]
    pooled: PooledContent
    corpus: CorpusContent
    configuration: dict[str, Json]
    seeds: dict[str, int]
    versions: dict[str, str]
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
                f"pooled: its confusion matrix is not the sum of the folds', {summed.tolist()}"
            )
        averaged = PooledContent.of(self.pooled.outcome, outcomes)
        if not (_alike(averaged.war, self.pooled.war) and _alike(averaged.uar, self.pooled.uar)):
            raise ValueError(f"pooled: not the folds' averages, {averaged.war} and {averaged.uar}")
        return self

    @property
    def curves_by_stage(self) -> dict[str, dict[str, dict[str, tuple[Point, ...]]]]:
        """Stage -> measure -> fold -> points: what is drawn together."""
        stages: dict[str, dict[str, dict[str, tuple[Point, ...]]]] = {}
        for fold in self.folds:
            for stage, curves in fold.curves.items():
                for measure, points in curves.items():
                    stages.setdefault(stage, {}).setdefault(measure, {})[fold.name] = points
        return stages


def _alike(a: Spread, b: Spread) -> bool:
    """Equal but for the last digits, which another machine may round otherwise."""
    return (
        (a.n, a.std is None) == (b.n, b.std is None)
        and abs(a.mean - b.mean) <= _TOLERANCE
        and abs((a.std or 0.0) - (b.std or 0.0)) <= _TOLERANCE
    )
