"""Writes the page of a sweep beside its record: ``sweep.html``, and ``sweep_report.json`` for programs."""

from __future__ import annotations

from collections.abc import Sequence

from gmp_atl_dist.report.sweep_building import sweep_content
from gmp_atl_dist.report.sweep_content import SweepContent
from gmp_atl_dist.report.sweep_html import PAGE_NAME, write_sweep_page
from gmp_atl_dist.report.sweep_input import ArmReports, MissingCell
from gmp_atl_dist.report.sweep_stored import ReportPlace, stored_arms
from gmp_atl_dist.stages.report_page import clips_of
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import read_run
from gmp_atl_dist.sweeps.record import SWEEPS, SweepRecord


def write_page(store: Store, record: SweepRecord, *, audio: bool = False) -> str | None:
    """Write the page of what is done so far. The first arm is the baseline.

    Args:
        audio: put the recordings of the shown errors into the page, cut to some seconds.

    Returns:
        The path of the page below the root; None where no arm has a report yet.

    Raises:
        ArtifactError: a report is not there, or cannot be read.
    """
    if not record.reports:
        return None
    folder = f"{SWEEPS}/{record.name}"
    places = [ReportPlace(r.arm, "", str(r.seed), r.run, r.fingerprint) for r in record.reports]
    found = {arm.name: arm for arm in stored_arms(store, places, folder)}
    arms = [found.get(name, ArmReports(name, "", ())) for name in record.arms]
    missing = [
        MissingCell(cell.arm, str(cell.seed), cell.fold, cell.message or cell.state)
        for cell in record.cells
        if cell.state != "done"
    ]
    content = sweep_content(
        record.name,
        arms,
        baseline=record.arms[0],
        folds=record.folds,
        missing=missing,
        prices=record.prices,
        currency=record.currency,
    )
    clips = _clips(store, record, arms, content) if audio else {}
    write_sweep_page(store, folder, content, clips=clips)
    return f"{folder}/{PAGE_NAME}"


def _clips(
    store: Store, record: SweepRecord, arms: Sequence[ArmReports], content: SweepContent
) -> dict[str, bytes]:
    """FLAC by utterance id of the shown errors, from the first run that has the recording."""
    left = {error.utterance_id for error in content.errors}
    clips: dict[str, bytes] = {}
    reports = {(arm.name, seed.seed): seed.reports for arm in arms for seed in arm.seeds}
    for report in record.reports:
        run = read_run(store, report.run)
        if not left or run is None:
            continue
        for cell in reports[report.arm, str(report.seed)]:
            clips |= clips_of(cell.content, store, run, left)
        left -= clips.keys()
    return clips
