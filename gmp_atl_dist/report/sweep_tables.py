"""The tables of a sweep's page. Each is shown there, and can be taken away as CSV, LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable

from gmp_atl_dist.report.sweep_cells import (
    DifferenceCell,
    NamedCell,
    ScoreCell,
    SweepTable,
    TableColumn,
)
from gmp_atl_dist.report.sweep_content import CostContent, SweepArm, SweepContent
from gmp_atl_dist.statistics.breakdown import By, Part
from gmp_atl_dist.statistics.summary import Summary

SCORES = (("uar", "UAR"), ("war", "WAR"), ("f1", "macro F1"))


def tables_of(content: SweepContent) -> dict[str, SweepTable]:
    """By name; those without a row are left out."""
    found = [make(content) for make in _MAKERS]
    return {table.name: table for table in found if table.rows}


def arms_table(content: SweepContent) -> SweepTable:
    """Scores, intervals, differences and tests."""
    columns = [TableColumn("arm", "Arm", "named"), TableColumn("protocol", "Protocol")]
    columns += [TableColumn("seeds", "Seeds", "count"), TableColumn("folds", "Folds", "count")]
    columns += [TableColumn(key, f"{title} (%)", "score") for key, title in SCORES]
    columns.append(TableColumn("calibration_error", "ECE (%)", "percent"))
    if content.test_set and content.test_set.absent_classes:
        columns.append(TableColumn("uar_left_out", "UAR, absent classes left out (%)", "percent"))
    if content.compared:
        columns += [_change("uar", "UAR", content), TableColumn("p_holm", "p, Holm", "p")]
    rows = tuple(
        tuple(_arm_cells(content, arm).get(column.key) for column in columns)
        for arm in content.arms
    )
    return SweepTable("arms", "Arms", tuple(columns), rows, content.sentences)


def tests_table(content: SweepContent) -> SweepTable:
    """Differences to the baseline, and the tests of them."""
    columns = (
        TableColumn("arm", "Arm"),
        *(_change(key, title, content) for key, title in SCORES),
        TableColumn("p", "p", "p"),
        TableColumn("p_holm", "p, Holm", "p"),
        TableColumn("only_arm", "Only this arm is right", "tenth"),
        TableColumn("only_baseline", f"Only {content.baseline} is right", "tenth"),
        TableColumn("mcnemar_p", "McNemar p", "p"),
        TableColumn("mcnemar_p_holm", "McNemar p, Holm", "p"),
        TableColumn("cohens_g", "Cohen's g", "decimal"),
    )
    rows = tuple(
        (arm.name, *(_arm_cells(content, arm).get(column.key) for column in columns[1:]))
        for arm in content.arms
        if arm.figures and arm.figures.difference
    )
    notes = (
        "p is that of the paired bootstrap of UAR; Holm's correction is over the arms. Numbers of utterances "
        "that only one of the two gets right are means over the pairs of seeds. Cohen's g is their share "
        "minus one half.",
    )
    return SweepTable("tests", "Tests against the baseline", columns, rows, notes)


def _change(key: str, title: str, content: SweepContent) -> TableColumn:
    return TableColumn(
        f"{key}_difference", f"{title} minus {content.baseline} (points)", "difference"
    )


def _arm_cells(content: SweepContent, arm: SweepArm) -> dict[str, object]:
    cells: dict[str, object] = {
        "arm": NamedCell(arm.name, arm.title),
        "protocol": arm.protocol,
        "seeds": len(arm.seeds),
        "folds": len(content.folds),
    }
    if arm.figures is None:
        return cells
    for key, _ in SCORES:
        estimate = arm.figures.scores[key]
        over = estimate.over_seeds
        cells[key] = ScoreCell(over.mean, over.sd, estimate.interval)
    error = arm.figures.calibration_error
    cells["calibration_error"] = error.mean if error else None
    cells["uar_left_out"] = arm.figures.uar_left_out
    difference = arm.figures.difference
    if difference is not None:
        for key, _ in SCORES:
            found = difference.scores[key]
            cells[f"{key}_difference"] = DifferenceCell(found.value, found.interval)
        cells |= {
            "p": difference.scores["uar"].p,
            "p_holm": difference.p_holm,
            "only_arm": difference.mcnemar.only_arm,
            "only_baseline": difference.mcnemar.only_baseline,
            "mcnemar_p": difference.mcnemar.p,
            "mcnemar_p_holm": difference.mcnemar_p_holm,
            "cohens_g": difference.mcnemar.cohens_g,
        }
    return cells


def missing_table(content: SweepContent) -> SweepTable:
    """Cells that failed or were not run."""
    columns = (TableColumn("arm", "Arm"), TableColumn("seed", "Seed"), TableColumn("fold", "Fold"))
    rows = tuple((cell.arm, cell.seed, cell.fold, cell.reason) for cell in content.missing)
    return SweepTable(
        "missing", "Cells without a result", (*columns, TableColumn("reason", "Reason")), rows
    )


def settings_table(content: SweepContent) -> SweepTable:
    """What the arms change."""
    columns = (
        TableColumn("key", "Key", "mono"),
        *(TableColumn(a.name, a.name, "mono") for a in content.arms),
    )
    rows = tuple((setting.key, *setting.values) for setting in content.settings)
    return SweepTable("settings", "Settings that differ", columns, rows)


def references_table(content: SweepContent) -> SweepTable:
    """Figures of the literature, and ours below them."""
    columns = (
        TableColumn("system", "System", "named"),
        TableColumn("protocol", "Protocol"),
        TableColumn("uar", "UAR (%)", "percent"),
        TableColumn("war", "WAR (%)", "percent"),
        TableColumn("source", "Source"),
        TableColumn("url", "Address", "mono"),
    )
    if not content.references:
        return SweepTable("references", "Figures of the literature", columns, ())
    theirs = [
        (NamedCell(r.system, ""), r.protocol, r.uar, r.war, r.source, r.url)
        for r in content.references
    ]
    ours = [
        (
            NamedCell(arm.name, arm.title),
            f"{arm.protocol}, {len(content.folds)} folds, {len(arm.seeds)} seeds",
            arm.figures.scores["uar"].over_seeds.mean,
            arm.figures.scores["war"].over_seeds.mean,
            "this sweep",
            "",
        )
        for arm in content.arms
        if arm.figures is not None
    ]
    notes = (
        "Figures of the literature are as published. They were measured under their own protocols, models "
        "and settings, and no test compares them with ours.",
    )
    return SweepTable("references", "Figures of the literature", columns, (*theirs, *ours), notes)


def confusion_table(content: SweepContent) -> SweepTable:
    """The matrices in long form."""
    columns = (
        TableColumn("arm", "Arm"),
        TableColumn("true", "True"),
        *(TableColumn(f"predicted_{name}", f"as {name}", "tenth") for name in content.classes),
    )
    rows = tuple(
        (arm.name, true, *counts)
        for arm in content.arms
        for true, counts in zip(content.classes, arm.confusion, strict=False)
    )
    return SweepTable("confusion", "Confusion matrices", columns, rows, _MEAN_COUNTS)


_MEAN_COUNTS = ("Test utterances of all folds; mean over seeds.",)


def _parts_maker(by: By, title: str) -> Callable[[SweepContent], SweepTable]:
    def make(content: SweepContent) -> SweepTable:
        arms = [(arm.name, arm.figures) for arm in content.arms if arm.figures]
        columns = (
            TableColumn(by, by.capitalize()),
            TableColumn("utterances", "Utterances", "count"),
            *(() if by == "class" else (TableColumn("classes", "Classes", "count"),)),
            *(TableColumn(name, f"{name} (%)", "score") for name, _ in arms),
        )
        parts = [{part.name: part for part in found.parts.get(by, ())} for _, found in arms]
        names = dict.fromkeys(name for of_arm in parts for name in of_arm)
        rows = tuple(_part_row(name, [of.get(name) for of in parts], by) for name in names)
        note = (
            "Recall; mean and standard deviation over seeds."
            if by == "class"
            else "UAR over the classes that have an utterance there; mean and standard deviation over "
            "seeds. UARs over different classes cannot be compared."
        )
        name = {"class": "classes"}.get(by, f"{by}s").replace("corpuss", "corpora")
        return SweepTable(name, title, columns, rows, (note,))

    return make


def _part_row(name: str, parts: list[Part | None], by: By) -> tuple[object, ...]:
    first = next(part for part in parts if part is not None)
    classes = () if by == "class" else (first.num_classes,)
    cells = (None if part is None else _over_seeds(part.uar_left_out) for part in parts)
    return (name, first.num_utterances, *classes, *cells)


def _over_seeds(found: Summary) -> ScoreCell:
    return ScoreCell(found.mean, found.sd)


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
        TableColumn("arm", "Arm"),
        TableColumn("seed", "Seed"),
        TableColumn("fold", "Fold"),
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
    columns = (
        TableColumn("arm", "Arm"),
        TableColumn("counted", "Counted"),
        TableColumn("artefacts", "Artefacts", "count"),
        TableColumn("unknown", "Without a duration", "count"),
        TableColumn("hours", "Hours of stages", "decimal"),
        *(TableColumn(f"{d.lower()}_hours", f"{d}-hours", "decimal") for d in devices),
        TableColumn("bytes", "Size", "size"),
    )

    def row(name: str, what: str, cost: CostContent) -> tuple[object, ...]:
        hours = (cost.device_hours.get(device) for device in devices)
        known = cost.hours if cost.unknown < cost.artefacts else None
        return (name, what, cost.artefacts, cost.unknown, known, *hours, cost.size_bytes)

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
    _parts_maker("class", "Classes"),
    _parts_maker("fold", "Folds"),
    _parts_maker("corpus", "Corpora"),
    _parts_maker("gender", "Genders"),
    _parts_maker("speaker", "Speakers"),
    codebooks_table,
    errors_table,
    lineage_table,
    cost_table,
)
