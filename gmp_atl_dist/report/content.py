"""The schema of ``report.json``, from which the HTML page is rendered.

Related numbers are checked against each other: scores against their confusion matrix, the pooled
matrix against those of the folds. So a report cannot contradict itself. It contains no time, host or
environment: the same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gmp_atl_dist import metrics
from gmp_atl_dist.metrics import Spread
from gmp_atl_dist.report.audio_content import AudioContent
from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.report.codebook_content import CodebookContent, Count, TimelineContent
from gmp_atl_dist.report.corpus_content import CorpusContent
from gmp_atl_dist.report.groups import GroupContent, GroupsContent
from gmp_atl_dist.report.outcome import TOLERANCE, Outcome
from gmp_atl_dist.report.predictions import ErrorContent, PredictionsContent
from gmp_atl_dist.report.protocol import Content, Protocol, SelectionRule
from gmp_atl_dist.report.verdict import Verdict, verdict_of

if TYPE_CHECKING:
    from gmp_atl_dist.config import Json
else:
    Json = JsonValue  # pydantic cannot build a validator from a recursive alias of strings

Point = tuple[int, float]
"""(step, value) of a learning curve."""
Curves = dict[str, dict[str, tuple[Point, ...]]]
"""Stage -> metric -> points."""

Lines = Mapping[str, Mapping[str, tuple[Point, ...]]]
"""Metric -> fold -> points."""

LARGEST_CLUSTER_SHARE = "largest_cluster_share"
"""A metric of pretraining: the accuracy of always predicting the most frequent label."""
SURE_FROM = 0.75
"""A predicted gender of a lower probability is counted as unsure."""


class Selection(Content):
    """The selected epoch and the rule. ``value`` is the value of the metric ``measure`` at it."""

    rule: SelectionRule
    epoch: Annotated[int, Field(ge=1)]
    num_epochs: Annotated[int, Field(ge=1)]
    measure: str | None = None
    value: float | None = None


class GendersContent(Content):
    """The predicted genders of an unlabelled source in one fold, and how sure the model was of them.

    ``mean_probability`` is that of the predicted gender. ``unsure_share`` is the share of the utterances
    where it is below ``SURE_FROM``; half is chance.
    """

    source: str
    per_gender: dict[str, Count]
    mean_probability: float
    unsure_share: float


class FoldContent(Content):
    """One fold: its speakers, its scores, and the results of its stages.

    ``predicted_genders`` is left out of the JSON where none were predicted.
    """

    name: str
    train_speakers: tuple[str, ...]
    valid_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...]
    num_train: Count
    num_valid: Count = 0
    num_test: Count
    outcome: Outcome
    selection: Selection
    train_per_class: dict[str, Count] = Field(default_factory=dict)
    train_per_gender: dict[str, Count] = Field(default_factory=dict)
    curves: Curves = Field(default_factory=dict)
    codebooks: tuple[CodebookContent, ...] = ()
    timelines: tuple[TimelineContent, ...] = ()
    artefacts: dict[str, str] = Field(default_factory=dict)
    shared_speakers: tuple[str, ...] = ()
    """Test speakers in training or validation too; only the protocol ``speaker_dependent`` has some."""
    notes: tuple[str, ...] = ()
    """What one should know about the split: where it is from, partners on two sides, what it leaves out."""
    predicted_genders: tuple[GendersContent, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_genders(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        if not self.predicted_genders:
            values.pop("predicted_genders", None)
        return values

    @model_validator(mode="after")
    def _all_tested(self) -> Self:
        if self.outcome.scores.num_utterances != self.num_test:
            raise ValueError(
                f"fold {self.name!r}: {self.outcome.scores.num_utterances} predictions for "
                f"{self.num_test} test utterances; every one needs a prediction"
            )
        return self


class PooledContent(Content):
    """The scores of all folds' predictions as one set, what they show, and the averages of the folds'
    scores.

    In ``uar``, a class that a fold lacks counts as recall 0. ``uar_left_out`` is the same average where each
    fold leaves out the classes that it lacks. It is None, and left out of the JSON, if no fold lacks one.
    """

    outcome: Outcome
    verdict: Verdict
    war: Spread
    uar: Spread
    uar_left_out: Spread | None = None

    @model_serializer(mode="wrap")
    def _without_one_convention(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        if self.uar_left_out is None:
            values.pop("uar_left_out", None)
        return values

    @classmethod
    def of(
        cls, outcome: Outcome, folds: Sequence[Outcome], classes: Sequence[str]
    ) -> PooledContent:
        """``outcome`` belongs to all predictions together, ``folds`` to the single folds."""
        return cls(
            outcome=outcome,
            verdict=verdict_of(outcome, classes),
            war=metrics.spread([fold.scores.war for fold in folds]),
            uar=metrics.spread([fold.scores.uar for fold in folds]),
            uar_left_out=metrics.spread([fold.scores.uar_of_present_classes for fold in folds])
            if any(fold.scores.absent_classes for fold in folds)
            else None,
        )


class ReportContent(Content):
    """A complete report. ``artefacts`` are shared by all folds: kind -> identity, the digest of what
    was read. Those of a fold are kind -> fingerprint."""

    title: str
    protocol: Protocol
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    folds: Annotated[tuple[FoldContent, ...], Field(min_length=1)]
    pooled: PooledContent
    calibration: Calibration | None = None
    """Of the predictions of all folds."""
    groups: GroupsContent = GroupsContent()
    errors: tuple[ErrorContent, ...] = ()
    """The most confident wrong predictions, most confident first."""
    num_errors: Count = 0
    """Of all test utterances, the shown ones included."""
    predictions: PredictionsContent = PredictionsContent()
    """Empty if there are too many for one page; ``predictions.csv`` beside the report has them all."""
    corpus: CorpusContent
    audio: AudioContent | None = None
    """The audio audit; None if the ``ingest`` artefact is of an earlier release, which measured nothing."""
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
            on_two_sides = {*fold.train_speakers, *fold.valid_speakers} & {*fold.test_speakers}
            if {*fold.shared_speakers} != on_two_sides or (
                on_two_sides and self.protocol.name != "speaker_dependent"
            ):
                raise ValueError(
                    f"fold {fold.name!r}: {sorted(on_two_sides)} are on two sides and "
                    f"{list(fold.shared_speakers)} are said to be, under protocol "
                    f"{self.protocol.name!r}; only 'speaker_dependent' has such folds, and names them"
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
        averaged = PooledContent.of(self.pooled.outcome, outcomes, self.classes)
        if not (
            _almost_equal(averaged.war, self.pooled.war)
            and _almost_equal(averaged.uar, self.pooled.uar)
            and (
                averaged.uar_left_out is None
                or self.pooled.uar_left_out is None  # of release 0.4 or before
                or _almost_equal(averaged.uar_left_out, self.pooled.uar_left_out)
            )
        ):
            raise ValueError(
                f"pooled: not the averages of the folds, {averaged.war} and {averaged.uar}"
            )
        # The level alone: a later release may word the sentences in another way.
        if averaged.verdict.level != self.pooled.verdict.level:
            raise ValueError(f"pooled: the verdict on these scores is {averaged.verdict.level!r}")
        for kind in ("speakers", "genders", "corpora"):
            self._check_groups(kind, getattr(self.groups, kind))
        if self.predictions.utterances:
            self._check_predictions()
        if self.calibration is not None:
            self._check_calibration(self.calibration)
        return self

    def _check_calibration(self, calibration: Calibration) -> None:
        scores = self.pooled.outcome.scores
        given = (calibration.count, calibration.accuracy)
        if given[0] != scores.num_utterances or abs(given[1] - scores.war) > TOLERANCE:
            raise ValueError(
                f"calibration: {given[0]} predictions with accuracy {given[1]}, but the pooled scores "
                f"have {scores.num_utterances} with {scores.war}"
            )

    def _check_predictions(self) -> None:
        true, predicted = self.predictions.true, self.predictions.predicted
        try:
            counts = metrics.confusion_matrix(true, predicted, len(self.classes))
        except ValueError as e:
            raise ValueError(f"predictions: {e}") from None
        if not np.array_equal(counts, self.pooled.outcome.confusion):
            raise ValueError("predictions: they are not those of the pooled confusion matrix")

    def _check_groups(self, kind: str, groups: Sequence[GroupContent]) -> None:
        """The matrices of the groups must add up to the pooled one."""
        if groups and not np.array_equal(
            np.sum([group.confusion for group in groups], axis=0), self.pooled.outcome.confusion
        ):
            raise ValueError(f"groups.{kind}: their confusion matrices do not add up to the pooled")

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
        and abs(a.mean - b.mean) <= TOLERANCE
        and abs((a.std or 0.0) - (b.std or 0.0)) <= TOLERANCE
    )
