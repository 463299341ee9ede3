"""What the page of a sweep is made from: the reports of its cells, and what their stages cost.

A cell is one arm with one seed in one fold. A report has one fold or several, so an arm with one seed may
have one report of all folds, or one per fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gmp_atl_dist.report.content import FoldContent, ReportContent
from gmp_atl_dist.statistics.arms import Cell, PredictedUtterance


@dataclass(frozen=True)
class StageCost:
    """What one artefact cost when it was made. ``None`` is not known.

    Attributes:
        fingerprint: of the artefact; what several cells share is counted once.
        name: of the stage.
        duration_s: from start to end.
        devices: what its workers held during that time: cores as ``CPU``, devices as ``GPU``; empty if it
            is not known.
        size_bytes: of all stored objects.
    """

    fingerprint: str
    name: str
    duration_s: float | None = None
    devices: Mapping[str, float] = field(default_factory=dict)
    size_bytes: int | None = None


@dataclass(frozen=True)
class CellReport:
    """A finished report of an arm with one seed.

    Attributes:
        content: of ``report.json``.
        link: path of its own page, relative to that of the sweep; empty if there is none.
        stages: what its artefacts cost.
        predictions: by fold, where ``content`` has none because they are too many for one page.
    """

    content: ReportContent
    link: str = ""
    stages: tuple[StageCost, ...] = ()
    predictions: dict[str, Sequence[PredictedUtterance]] | None = None


@dataclass(frozen=True)
class SeedReports:
    """The finished reports of an arm with one seed."""

    seed: str
    reports: tuple[CellReport, ...]

    def folds(self) -> Iterator[tuple[FoldContent, CellReport]]:
        """Every fold with the report that it is in.

        Raises:
            ValueError: two reports have the same fold.
        """
        seen: set[str] = set()
        for report in self.reports:
            for fold in report.content.folds:
                if fold.name in seen:
                    raise ValueError(f"seed {self.seed}: two reports have the fold {fold.name!r}")
                seen.add(fold.name)
                yield fold, report


@dataclass(frozen=True)
class ArmReports:
    """An arm: its name, a line that says what it is, and its seeds."""

    name: str
    title: str
    seeds: tuple[SeedReports, ...]


@dataclass(frozen=True)
class MissingCell:
    """A cell without a result, and why: the error that ended it, or that it was not run."""

    arm: str
    seed: str
    fold: str
    reason: str


def cells_of(arm: ArmReports, seed: SeedReports) -> list[Cell]:
    """The predictions of every fold.

    Raises:
        ValueError: a report has no predictions.
    """
    return [
        Cell(arm.name, seed.seed, fold.name, _predictions(arm, seed, fold.name, report))
        for fold, report in seed.folds()
    ]


def _predictions(
    arm: ArmReports, seed: SeedReports, fold: str, report: CellReport
) -> Sequence[PredictedUtterance]:
    if report.predictions is not None and fold in report.predictions:
        return report.predictions[fold]
    stored, classes = report.content.predictions, report.content.classes
    found = [
        PredictedUtterance(name, speaker, gender, classes[true], classes[predicted], tuple(p))
        for name, of_fold, speaker, gender, true, predicted, p in zip(
            *(getattr(stored, field) for field in type(stored).model_fields), strict=True
        )
        if of_fold == fold
    ]
    if not found:
        raise ValueError(
            f"{arm.name}, seed {seed.seed}, fold {fold}: its report.json has no predictions; give those of "
            f"predictions.csv"
        )
    return found
