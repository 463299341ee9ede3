"""Writes the page of a sweep beside its record: ``sweep.html``, and ``sweep_report.json`` for programs."""

from __future__ import annotations

from gmp_atl_dist.report.sweep_building import sweep_content
from gmp_atl_dist.report.sweep_html import PAGE_NAME, write_sweep_page
from gmp_atl_dist.report.sweep_input import ArmReports, MissingCell
from gmp_atl_dist.report.sweep_stored import ReportPlace, stored_arms
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.sweeps.record import SWEEPS, SweepRecord


def write_page(store: Store, record: SweepRecord) -> str | None:
    """Write the page of what is done so far. The first arm is the baseline.

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
        record.name, arms, baseline=record.arms[0], folds=record.folds, missing=missing
    )
    write_sweep_page(store, folder, content)
    return f"{folder}/{PAGE_NAME}"
