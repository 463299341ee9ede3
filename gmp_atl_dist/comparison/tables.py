"""The table of a comparison: for people, and as CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from gmp_atl_dist.comparison.comparing import ComparedRuns
from gmp_atl_dist.report.tables import latex_row
from gmp_atl_dist.statistics.breakdown import By, Part
from gmp_atl_dist.statistics.comparing import ComparedArm, Difference, Estimate, ScoreDifference

NAMES = {"uar": "UAR", "war": "WAR", "f1": "macro F1"}
_NOTHING = ""


def headings(found: ComparedRuns) -> tuple[str, ...]:
    """The columns of :func:`rows`. Those that would say nothing are left out."""
    protocol = ("protocol",) if found.across_protocols else ()
    seeds = ("seeds", "sd of UAR", "range of UAR") if _several_seeds(found) else ()
    left_out = ("UAR, left out",) if found.comparison.absent_classes else ()
    holm = ("Holm p",) if _several_tests(found) else ()
    holm_mcnemar = ("Holm McNemar p",) if _several_tests(found) else ()
    return (
        *("arm", *protocol, *seeds, "UAR %", *left_out, "WAR %", "macro F1 %"),
        *("UAR difference", "p", *holm, "McNemar p", *holm_mcnemar, "Cohen's g", "ECE %"),
    )


def rows(found: ComparedRuns) -> list[tuple[str, ...]]:
    """A row per arm. Scores in percent, differences in points, each with its interval."""
    return [
        _row(found, arm, protocol)
        for arm, protocol in zip(found.comparison.arms, found.protocols, strict=True)
    ]


def _row(found: ComparedRuns, arm: ComparedArm, protocol: str) -> tuple[str, ...]:
    over_seeds, difference = arm.scores["uar"].over_seeds, arm.difference
    cells = [arm.name]
    if found.across_protocols:
        cells.append(protocol)
    if _several_seeds(found):
        spread = (f"{100 * over_seeds.lowest:.1f} to {100 * over_seeds.highest:.1f}",)
        sd = _NOTHING if over_seeds.sd is None else f"{100 * over_seeds.sd:.1f}"
        cells += [str(over_seeds.n), sd, *(spread if over_seeds.n > 1 else (_NOTHING,))]
    cells.append(_estimate(arm.scores["uar"]))
    if found.comparison.absent_classes:
        cells.append(f"{100 * arm.uar_left_out:.1f}")
    cells += [_estimate(arm.scores["war"]), _estimate(arm.scores["f1"])]
    cells += _difference_cells(difference, corrected=_several_tests(found))
    error = arm.calibration_error
    cells.append(_NOTHING if error is None else f"{100 * error.mean:.1f}")
    return tuple(cells)


def _difference_cells(difference: Difference | None, *, corrected: bool) -> list[str]:
    if difference is None:
        return ["baseline", *[_NOTHING] * (5 if corrected else 3)]
    test = difference.mcnemar
    g = _NOTHING if test.cohens_g is None else f"{test.cohens_g:+.2f}"
    ps = [_p(difference.scores["uar"].p), _p(difference.p_holm)]
    tests = [_p(test.p), _p(difference.mcnemar_p_holm)]
    shown = [*ps, *tests] if corrected else [ps[0], tests[0]]
    return [_points(difference.scores["uar"]), *shown, g]


def part_headings(found: ComparedRuns, by: By) -> tuple[str, ...]:
    """The columns of :func:`part_rows`."""
    return (by, "utterances", *(f"{arm.name} {_measure(by)}" for arm in found.comparison.arms))


def part_rows(found: ComparedRuns, by: By) -> list[tuple[str, ...]]:
    """A row per fold, class, gender, speaker or corpus, with the score of each arm.

    Of a fold that lacks a class, both conventions are shown. Folds end with their mean under each of them.
    """
    arms = found.comparison.arms
    parts = [{part.name: part for part in arm.parts.get(by, ())} for arm in arms]
    names = list(dict.fromkeys(name for of_arm in parts for name in of_arm))
    table = [
        (
            name,
            str(next(of_arm[name].num_utterances for of_arm in parts if name in of_arm)),
            *(_part(of_arm.get(name), by) for of_arm in parts),
        )
        for name in names
    ]
    if by == "fold" and len(names) > 1:
        table.append(("mean", "", *(f"{100 * arm.fold_means.zero.mean:.1f}" for arm in arms)))
        if any(arm.fold_means.incomplete for arm in arms):
            table[-1] = ("mean, recall 0", *table[-1][1:])
            left_out = (f"{100 * arm.fold_means.left_out.mean:.1f}" for arm in arms)
            table.append(("mean, left out", "", *left_out))
    return table


def part_note(by: By) -> str:
    """What the scores of :func:`part_rows` are."""
    if by == "class":
        return "Recall of each class in percent, mean over seeds, with the sd over seeds."
    note = "UAR in percent, mean over seeds, with the sd over seeds."
    if by == "fold":
        return (
            f"{note} A class without an utterance in a fold counts as recall 0; where there is one, the UAR "
            f"over the other classes is in parentheses. Each mean of folds follows one of the two in every "
            f"fold."
        )
    return (
        f"{note} It is over the classes that have an utterance there, and UARs over different classes "
        f"cannot be compared."
    )


def to_csv(found: ComparedRuns) -> bytes:
    """A row per arm; scores and differences are fractions."""
    out = io.StringIO()
    table = [dict(_csv_cells(found, i)) for i in range(len(found.comparison.arms))]
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue().encode()


def _csv_cells(found: ComparedRuns, i: int) -> Iterator[tuple[str, object]]:
    arm = found.comparison.arms[i]
    yield "arm", arm.name
    yield "baseline", found.comparison.baseline
    yield "protocol", found.protocols[i]
    yield "runs", " ".join(run.label for run in found.groups[i].runs)
    yield "seeds", len(arm.seeds)
    yield "utterances", found.comparison.num_utterances
    yield "speakers", found.comparison.num_speakers
    yield "resampled", found.comparison.unit
    for name, estimate in arm.scores.items():
        spread = estimate.over_seeds
        yield name, _six(spread.mean)
        yield f"{name}_low", _six(estimate.interval[0])
        yield f"{name}_high", _six(estimate.interval[1])
        yield f"{name}_sd", _six(spread.sd)
        yield f"{name}_lowest", _six(spread.lowest)
        yield f"{name}_highest", _six(spread.highest)
    yield "uar_left_out", _six(arm.uar_left_out)
    yield "ece", _six(arm.calibration_error.mean if arm.calibration_error else None)
    difference = arm.difference
    for name in arm.scores:
        score = difference.scores[name] if difference else None
        yield f"{name}_difference", _six(score.value if score else None)
        yield f"{name}_difference_low", _six(score.interval[0] if score else None)
        yield f"{name}_difference_high", _six(score.interval[1] if score else None)
        yield f"{name}_p", _six(score.p if score else None)
    test = difference.mcnemar if difference else None
    yield "uar_p_holm", _six(difference.p_holm if difference else None)
    yield "mcnemar_only_baseline", test.only_baseline if test else ""
    yield "mcnemar_only_arm", test.only_arm if test else ""
    # Six decimals would make 0 of a small p-value.
    yield "mcnemar_p", f"{test.p:.6g}" if test else ""
    yield "mcnemar_p_holm", f"{difference.mcnemar_p_holm:.6g}" if difference else ""
    yield "cohens_g", _six(test.cohens_g if test else None)


def to_latex(found: ComparedRuns) -> bytes:
    """A ``tabular`` of the same columns as the table for people; the sentences are comments."""
    names = headings(found)
    lines = [f"% {' '.join(sentence.split())}" for sentence in found.comparison.sentences]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}", r"\hline"]
    lines += [latex_row(names), r"\hline", *(latex_row(row) for row in rows(found))]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""]).encode()


def to_markdown(found: ComparedRuns) -> bytes:
    """The table for people, with the sentences as a list below it."""
    names = headings(found)
    lines = [_markdown_row(names), _markdown_row(["---", *["---:"] * (len(names) - 1)])]
    lines += [_markdown_row(row) for row in rows(found)]
    lines += ["", *(f"- {' '.join(s.split())}" for s in found.comparison.sentences), ""]
    return "\n".join(lines).encode()


def as_json(found: ComparedRuns) -> dict[str, object]:
    """Everything, with fractions."""
    comparison = asdict(found.comparison)
    for arm, group, protocol in zip(comparison["arms"], found.groups, found.protocols, strict=True):
        arm["protocol"] = protocol
        arm["runs"] = [
            {"name": run.label, "place": run.place, "seed": seed}
            for run, seed in zip(group.runs, group.seeds, strict=True)
        ]
    return {**comparison, "across_protocols": found.across_protocols}


def _several_seeds(found: ComparedRuns) -> bool:
    return any(len(arm.seeds) > 1 for arm in found.comparison.arms)


def _several_tests(found: ComparedRuns) -> bool:
    return len(found.comparison.arms) > 2


def _estimate(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{100 * estimate.over_seeds.mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _points(score: ScoreDifference) -> str:
    low, high = score.interval
    return f"{100 * score.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _measure(by: By) -> str:
    return "recall %" if by == "class" else "UAR %"


def _part(part: Part | None, by: By) -> str:
    if part is None:
        return _NOTHING
    score = part.uar_zero if by == "fold" else part.uar_left_out
    text = f"{100 * score.mean:.1f}"
    if score.sd is not None:
        text += f" ± {100 * score.sd:.1f}"
    if by == "fold" and part.uar_left_out != part.uar_zero:
        text += f" ({100 * part.uar_left_out.mean:.1f})"
    return text


def _six(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
