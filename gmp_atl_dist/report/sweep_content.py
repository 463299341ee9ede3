"""The schema of ``sweep_report.json``, from which the page of a sweep is rendered.

It has no time, host or environment beside the durations of stages. The same content gives the same bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from gmp_atl_dist.report.codebook_content import Count, TimelineScale
from gmp_atl_dist.report.content import Point
from gmp_atl_dist.report.protocol import Content, ProtocolName
from gmp_atl_dist.report.rows import CodebookRow
from gmp_atl_dist.report.spectrogram import Spectrogram
from gmp_atl_dist.report.sweep_references import ReferenceFigure
from gmp_atl_dist.statistics.bootstrap import Unit
from gmp_atl_dist.statistics.comparing import ComparedArm

_LINK = re.compile(r"(?!/)[^:?#\\]+")
"""A relative path: no scheme, no host, no query."""


class SweepCell(Content):
    """One arm with one seed in one fold: its scores, its own page, and what it was made from.

    ``artefacts`` are kind -> fingerprint. ``link`` is the path of its page, relative to that of the sweep.
    """

    seed: str
    fold: str
    uar: float
    war: float
    num_test: Count
    link: str = ""
    corpus: str
    """Identity of the corpus: the sha256 of samples and labels."""
    model: str = ""
    """Identity of the model from which the cell started."""
    artefacts: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _relative(self) -> Self:
        if self.link and not (_LINK.fullmatch(self.link) and "//" not in self.link):
            raise ValueError(f"link {self.link!r}: give a path relative to the page of the sweep")
        return self


class MissingContent(Content):
    """A cell without a result, and why."""

    arm: str
    seed: str
    fold: str
    reason: str


class CostContent(Content):
    """What artefacts cost together, each counted once. ``unknown`` of them have no known duration.

    ``device_hours`` are by device; durations without a known demand are not among them. ``price`` is that of
    the device-hours; None where no price is set.
    """

    artefacts: Count = 0
    unknown: Count = 0
    hours: float = 0.0
    device_hours: dict[str, float] = Field(default_factory=dict)
    price: float | None = None
    size_bytes: Count | None = None


class SweepArm(Content):
    """An arm. ``figures`` are over its complete seeds; None where no seed has all folds.

    Attributes:
        protocol: None where no cell has a result.
        incomplete: seeds without a result in some fold; they are in no figure.
        confusion: (K, K) mean over seeds of the counts over all folds; rows are the truth.
        codebooks: means over the folds and seeds of each codebook.
        alone: cost of the arm as if it were the only one.
        added: cost of the artefacts that no other arm uses.
    """

    name: str
    title: str = ""
    protocol: ProtocolName | None
    statement: str = ""
    warning: str | None = None
    seeds: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    cells: tuple[SweepCell, ...]
    figures: ComparedArm | None = None
    confusion: tuple[tuple[float, ...], ...] = ()
    codebooks: tuple[CodebookRow, ...] = ()
    alone: CostContent = CostContent()
    added: CostContent = CostContent()


class CurveLine(Content):
    """A learning curve of one seed in one fold, thinned."""

    seed: str
    fold: str
    points: tuple[Point, ...]


class CurveContent(Content):
    """What one stage of an arm learnt. ``chance`` is what a model reaches that ignores the audio."""

    arm: str
    stage: str
    metric: str
    title: str
    axis: str
    percent: bool
    chance: float | None = None
    chance_name: str = ""
    lines: tuple[CurveLine, ...]


class CommonErrorContent(Content):
    """A test utterance that many arms and seeds get wrong.

    Attributes:
        wrong: how many of ``models`` (one per arm and seed) are wrong.
        predicted: number of models by predicted class, most frequent first, then by name.
        probability: mean probability of the predicted class over the models that are wrong.
        spectrogram, scales: from a report that shows the utterance; frame labels exist only where the
            protocol allowed clustering to use test audio.
    """

    utterance_id: str
    speaker: str
    gender: str
    fold: str
    true: str
    wrong: Count
    models: Count
    predicted: tuple[tuple[str, Count], ...]
    probability: float | None = None
    seconds: float | None = None
    spectrogram: Spectrogram | None = None
    scales: tuple[TimelineScale, ...] = ()


class SettingContent(Content):
    """A key of the configuration that differs between arms. ``values`` follow the arms."""

    key: str
    values: tuple[str, ...]


class SweepTestSet(Content):
    """What all arms were tested on, and how intervals are drawn from it."""

    num_utterances: Count
    num_speakers: Count
    absent_classes: tuple[str, ...] = ()
    unit: Unit
    samples: Count
    confidence: float


class SweepContent(Content):
    """A complete sweep."""

    name: str
    corpus_name: str
    adapter: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    folds: Annotated[tuple[str, ...], Field(min_length=1)]
    baseline: str
    stages: tuple[str, ...] = ()
    arms: Annotated[tuple[SweepArm, ...], Field(min_length=1)]
    missing: tuple[MissingContent, ...] = ()
    test_set: SweepTestSet | None = None
    """None where no arm has a complete seed."""
    sentences: tuple[str, ...] = ()
    settings: tuple[SettingContent, ...] = ()
    references: tuple[ReferenceFigure, ...] = ()
    curves: tuple[CurveContent, ...] = ()
    errors: tuple[CommonErrorContent, ...] = ()
    num_always_wrong: Count = 0
    """Test utterances that every model gets wrong, the shown ones included."""
    num_models: Count = 0
    """Arms times seeds that were counted for the errors."""
    cost: CostContent = CostContent()
    currency: str = ""
    """What is written behind a price."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"two arms share a name: {names}")
        if self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is none of the arms {names}")
        if unknown := {cell.arm for cell in self.missing} - set(names):
            raise ValueError(f"missing cells of arms that are not there: {sorted(unknown)}")
        k = len(self.classes)
        for arm in self.arms:
            if arm.confusion and {len(arm.confusion), *map(len, arm.confusion)} != {k}:
                raise ValueError(f"{arm.name}: its confusion matrix is not {k} x {k}")
            if (arm.figures is None) != (not arm.confusion):
                raise ValueError(f"{arm.name}: figures and confusion matrix go together")
        if any(arm.figures for arm in self.arms) != (self.test_set is not None):
            raise ValueError("figures and the facts of the test set go together")
        return self

    @property
    def compared(self) -> bool:
        """Whether any arm has a difference to the baseline."""
        return any(arm.figures and arm.figures.difference for arm in self.arms)
