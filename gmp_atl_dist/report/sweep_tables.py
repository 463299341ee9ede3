"""The tables of a sweep's page. Each is shown there, and can be taken away as CSV, LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable

from gmp_atl_dist.report.sweep_cells import SweepTable, TableColumn
from gmp_atl_dist.report.sweep_content import CostContent, SweepContent
from gmp_atl_dist.report.sweep_score_tables import (
    arms_table,
    confusion_table,
    parts_maker,
    references_table,
    tests_table,
)

_CELL = (TableColumn("arm", "Arm"), TableColumn("seed", "Seed"), TableColumn("fold", "Fold"))


def tables_of(content: SweepContent) -> dict[str, SweepTable]:
    """By name; those without a row are left out."""
    found = [make(content) for make in _MAKERS]
    return {table.name: table for table in found if table.rows}


def missing_table(content: SweepContent) -> SweepTable:
    """Cells that failed or were not run."""
    columns = (*_CELL, TableColumn("reason", "Reason"))
    rows = tuple((cell.arm, cell.seed, cell.fold, cell.reason) for cell in content.missing)
    return SweepTable("missing", "Cells without a result", columns, rows)


def settings_table(content: SweepContent) -> SweepTable:
    """What the arms change."""
    columns = (
        TableColumn("key", "Key", "mono"),
        *(TableColumn(a.name, a.name, "mono") for a in content.arms),
    )
    rows = tuple((setting.key, *setting.values) for setting in content.settings)
    return SweepTable("settings", "Settings that differ", columns, rows)


def codebooks_table(content: SweepContent) -> SweepTable:
    """Use and quality of the labels."""
    columns = (
        TableColumn("arm", "Arm"),
        TableColumn("layer", "Layer", "count"),
        TableColumn("k", "k", "count"),
        TableColumn("group", "Speakers"),
        TableColumn("used", "Labels used", "tenth"),
        TableColumn("perplexity", "Perplexity", "tenth"),
        TableColumn("top_share", "Most frequent (%)", "percent"),
        TableColumn("emotion_purity", "Purity, emotion (%)", "percent"),
        TableColumn("emotion_pnmi", "PNMI, emotion", "decimal"),
        TableColumn("gender_pnmi", "PNMI, gender", "decimal"),
        TableColumn("speaker_pnmi", "PNMI, speaker", "decimal"),
        TableColumn("origin", "Origin"),
    )
    rows = tuple(
        (arm.name, *(getattr(book, column.key) for column in columns[1:]))
        for arm in content.arms
        for book in arm.codebooks
    )
    notes = ("Means over folds and seeds.",)
    return SweepTable("codebooks", "Codebooks", columns, rows, notes)


def errors_table(content: SweepContent) -> SweepTable:
    """The shown errors."""
    columns = (
        TableColumn("utterance", "Utterance", "mono"),
        TableColumn("speaker", "Speaker"),
        TableColumn("gender", "Gender"),
        TableColumn("fold", "Fold"),
        TableColumn("true", "True"),
        TableColumn("predicted", "Predicted by how many models"),
        TableColumn("wrong", "Wrong", "count"),
        TableColumn("models", "Models", "count"),
        TableColumn("probability", "Mean probability (%)", "percent"),
    )
    rows = tuple(
        (
            e.utterance_id,
            e.speaker,
            e.gender,
            e.fold,
            e.true,
            ", ".join(f"{name} {n}" for name, n in e.predicted),
            e.wrong,
            e.models,
            e.probability,
        )
        for e in content.errors
    )
    return SweepTable("errors", "Common errors", columns, rows)


def lineage_table(content: SweepContent) -> SweepTable:
    """From the audio to the figure, for each cell."""
    present = {kind for arm in content.arms for cell in arm.cells for kind in cell.artefacts}
    kinds = [*(s for s in content.stages if s in present), *sorted(present - set(content.stages))]
    columns = (
        *_CELL,
        TableColumn("corpus", "Corpus", "mono"),
        TableColumn("model", "First model", "mono"),
        *(TableColumn(kind, kind, "mono") for kind in kinds),
        TableColumn("uar", "UAR (%)", "percent"),
        TableColumn("war", "WAR (%)", "percent"),
    )
    rows = tuple(
        (
            arm.name,
            cell.seed,
            cell.fold,
            cell.corpus,
            cell.model,
            *(cell.artefacts.get(kind) for kind in kinds),
            cell.uar,
            cell.war,
        )
        for arm in content.arms
        for cell in arm.cells
    )
    return SweepTable("lineage", "Lineage", columns, rows)


def cost_table(content: SweepContent) -> SweepTable:
    """What each arm costs alone, and what it adds to the others."""
    devices = sorted(
        {d for arm in content.arms for d in arm.alone.device_hours} | {*content.cost.device_hours}
    )
    priced = content.cost.price is not None
    price = f"Price ({content.currency})" if content.currency else "Price"
    columns = (
        TableColumn("arm", "Arm"),
        TableColumn("counted", "Counted"),
        TableColumn("artefacts", "Artefacts", "count"),
        TableColumn("unknown", "Without a duration", "count"),
        TableColumn("hours", "Hours of stages", "decimal"),
        *(TableColumn(f"{d.lower()}_hours", f"{d}-hours", "decimal") for d in devices),
        TableColumn("bytes", "Size", "size"),
        *((TableColumn("price", price, "money"),) if priced else ()),
    )

    def row(name: str, what: str, cost: CostContent) -> tuple[object, ...]:
        hours = (cost.device_hours.get(device) for device in devices)
        known = cost.hours if cost.unknown < cost.artefacts else None
        end = (cost.size_bytes, cost.price) if priced else (cost.size_bytes,)
        return (name, what, cost.artefacts, cost.unknown, known, *hours, *end)

    each = [
        row(arm.name, what, cost)
        for arm in content.arms
        for what, cost in (("alone", arm.alone), ("added to the others", arm.added))
        if cost.artefacts
    ]
    if content.cost.artefacts:
        each.append(row("all arms", "shared artefacts once", content.cost))
    return SweepTable("cost", "Cost", columns, tuple(each))


_MAKERS: tuple[Callable[[SweepContent], SweepTable], ...] = (
    arms_table,
    tests_table,
    missing_table,
    settings_table,
    references_table,
    confusion_table,
    parts_maker("class", "Classes"),
    parts_maker("fold", "Folds"),
    parts_maker("corpus", "Corpora"),
    parts_maker("gender", "Genders"),
    parts_maker("speaker", "Speakers"),
    codebooks_table,
    errors_table,
    lineage_table,
    cost_table,
)
