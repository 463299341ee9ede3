"""Reads the reports of arms and seeds from the store, as input of a sweep's page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.sweep_input import ArmReports, CellReport, SeedReports, StageCost
from gmp_atl_dist.statistics.arms import PredictedUtterance
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import PAGE_NAME, RUNS, RunRecord, StageRun, read_run

_JSON, _CSV = "report.json", "predictions.csv"


class ReportPlace(NamedTuple):
    """Where the report of an arm with one seed lies. ``title`` is a line that says what the arm is."""

    arm: str
    title: str
    seed: str
    run: str
    fingerprint: str


def stored_arms(store: Store, places: Iterable[ReportPlace], folder: str) -> list[ArmReports]:
    """The arms in the order of their first report, with links to the pages of their runs.

    Args:
        folder: that of the sweep's page below the root, such as ``sweeps/NAME``.

    Raises:
        ArtifactError: a report is not there.
    """
    up = "../" * (folder.count("/") + 1)
    titles: dict[str, str] = {}
    seeds: dict[str, list[SeedReports]] = {}
    for place in places:
        report = find_artifact(store, ArtifactKey("report", place.fingerprint))
        if report is None:
            raise ArtifactError(
                f"{store.uri}: the report {place.fingerprint} of {place.arm} seed {place.seed} is not there; "
                f"run the sweep again"
            )
        page = f"{RUNS}/{place.run}/{PAGE_NAME}"
        link = up + page if store.exists(page) else ""
        cell = stored_cell(report, read_run(store, place.run), link)
        titles.setdefault(place.arm, place.title)
        seeds.setdefault(place.arm, []).append(SeedReports(place.seed, (cell,)))
    return [ArmReports(name, titles[name], tuple(found)) for name, found in seeds.items()]


def stored_cell(report: Artifact, record: RunRecord | None = None, link: str = "") -> CellReport:
    """The report ``report``, with the durations of ``record`` and the sizes of its artefacts.

    Args:
        record: the run that made the report; without it, no duration is known.
        link: path of its page, relative to that of the sweep.
    """
    content = ReportContent.model_validate_json(report.read_file(_JSON))
    predictions = None
    if not content.predictions.utterances:
        predictions = _predictions(report.read_file(_CSV), content.classes)
    return CellReport(content, link, _costs(report.store, content, record), predictions)


def _predictions(data: bytes, classes: Sequence[str]) -> dict[str, Sequence[PredictedUtterance]]:
    """By fold, from ``predictions.csv``."""
    found: dict[str, list[PredictedUtterance]] = {}
    for row in csv.DictReader(io.StringIO(data.decode("utf-8"))):
        found.setdefault(row["fold"], []).append(
            PredictedUtterance(
                utterance_id=row["utterance_id"],
                speaker=row["speaker"],
                gender=row["gender"],
                emotion=row["emotion"],
                predicted=row["predicted"],
                probabilities=tuple(float(row[f"p_{name}"]) for name in classes),
            )
        )
    return dict(found)


def _costs(store: Store, content: ReportContent, record: RunRecord | None) -> tuple[StageCost, ...]:
    """One for each artefact that the report or the record names."""
    names: dict[tuple[str, str], str] = {
        (kind, fingerprint): kind
        for fold in content.folds
        for kind, fingerprint in fold.artefacts.items()
    }
    made: dict[tuple[str, str], StageRun] = {}
    for stage in record.stages if record else ():
        key = (stage.kind, stage.fingerprint)
        names[key] = stage.name
        if stage.state != "found" or stage.duration_s:
            made[key] = stage
    costs = []
    for (kind, fingerprint), name in names.items():
        artefact = find_artifact(store, ArtifactKey(kind, fingerprint))
        size = sum(r.bytes for r in artefact.manifest.receipts) if artefact else None
        stage = made.get((kind, fingerprint))
        duration = None if stage is None else stage.total_s or 0.0
        held = {} if stage is None else stage.held
        costs.append(StageCost(fingerprint, name, duration, held, size_bytes=size))
    return tuple(costs)
