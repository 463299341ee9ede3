"""Tables of scores of a sweep's page: arms, tests, the literature, matrices, parts of the test set."""

from __future__ import annotations

from collections.abc import Callable

from gmp_atl_dist.report.sweep_cells import (
    DifferenceCell,
    NamedCell,
    ScoreCell,
    SweepTable,
    TableColumn,
)
from gmp_atl_dist.report.sweep_content import SweepArm, SweepContent
from gmp_atl_dist.statistics.breakdown import By, Part
from gmp_atl_dist.statistics.summary import Summary

SCORES = (("uar", "UAR"), ("war", "WAR"), ("f1", "macro F1"))


def arms_table(content: SweepContent) -> SweepTable:
    """Scores, intervals, differences and tests."""
    scores = [TableColumn(key, f"{title} (%)", "score") for key, title in SCORES]
    columns = [TableColumn("arm", "Arm", "named"), scores[0]]
    if content.test_set and content.test_set.absent_classes:
        columns.append(TableColumn("uar_left_out", "UAR, absent classes left out (%)", "percent"))
    if content.compared:
        columns += [_change("uar", "UAR", content), TableColumn("p_holm", "p, Holm", "p")]
    columns += [*scores[1:], TableColumn("calibration_error", "ECE (%)", "percent")]
    columns += [TableColumn("protocol", "Protocol")]
    columns += [TableColumn("seeds", "Seeds", "count"), TableColumn("folds", "Folds", "count")]
    rows = tuple(
        tuple(_arm_cells(content, arm).get(column.key) for column in columns)
        for arm in content.arms
    )
    return SweepTable("arms", "Arms", tuple(columns), rows, content.sentences)


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


def parts_maker(by: By, title: str) -> Callable[[SweepContent], SweepTable]:
    """A table of the scores of each class, fold, gender, speaker or corpus, with a column per arm."""

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
