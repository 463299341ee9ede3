"""Makes the content of a sweep's page from the reports of its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gmp_atl_dist.report.content import FoldContent, ReportContent
from gmp_atl_dist.report.protocol import Protocol
from gmp_atl_dist.report.rows import codebook_rows, ordered, sections
from gmp_atl_dist.report.sweep_content import SettingContent, SweepArm, SweepCell, SweepContent
from gmp_atl_dist.report.sweep_cost import Prices, arm_costs, total_cost
from gmp_atl_dist.report.sweep_curves import curves_of
from gmp_atl_dist.report.sweep_figures import Figures, common_errors, figures_of
from gmp_atl_dist.report.sweep_gaps import about_gaps, folds_of, gaps_of, with_seeds
from gmp_atl_dist.report.sweep_input import ArmReports, CellReport, MissingCell, cells_of
from gmp_atl_dist.report.sweep_references import references_for
from gmp_atl_dist.statistics.arms import NotComparableError
from gmp_atl_dist.statistics.bootstrap import Resampling

_SHOWN_ERRORS = 20
_MODEL = "backbone"
_CORPUS_KINDS = ("combine", "ingest")


def sweep_content(
    name: str,
    arms: Sequence[ArmReports],
    *,
    baseline: str = "",
    corpus_name: str = "",
    folds: Sequence[str] = (),
    missing: Iterable[MissingCell] = (),
    how: Resampling | None = None,
    prices: Prices | None = None,
    currency: str = "",
) -> SweepContent:
    """The content of a sweep.

    Only complete seeds, with a result in every fold, are in a figure: other seeds have another test set.

    Args:
        arms: in the order in which they are shown; an arm may have no finished seed.
        baseline: name of the arm that the others are compared with; empty: the first.
        corpus_name: what people call the corpus; empty: the name of its adapter.
        folds: every fold of the sweep; empty: those that some report has.
        prices: of an hour, by device; None: no price is shown.
        currency: what is written behind a price.
        missing: cells that failed or were not run. A seed that lacks a fold of ``folds`` is named anyway.

    Raises:
        ValueError: there is no arm or no report, two arms share a name, or a report is incomplete.
        NotComparableError: arms have other classes, or were tested on other utterances.
    """
    reports = [r.content for arm in arms for seed in arm.seeds for r in seed.reports]
    if not reports:
        raise ValueError("no cell of the sweep has a report; there is nothing to show")
    first = reports[0]
    _check_classes(arms, first.classes)
    every_fold = tuple(folds) or folds_of(arms)
    told = tuple(missing)
    arms = [with_seeds(arm, [gap.seed for gap in told if gap.arm == arm.name]) for arm in arms]
    gaps = gaps_of(arms, every_fold, told)
    lacking = {(gap.arm, gap.seed) for gap in gaps}
    complete = {
        arm.name: tuple(seed for seed in arm.seeds if (arm.name, seed.seed) not in lacking)
        for arm in arms
    }
    chosen = baseline or arms[0].name
    figures = figures_of(
        [cell for arm in arms for seed in complete[arm.name] for cell in cells_of(arm, seed)],
        first.classes,
        chosen,
        how or Resampling(),
    )
    errors, always = ((), 0)
    if figures is not None:
        pictures = [error for report in reports for error in report.errors]
        errors, always = common_errors(figures, pictures, _SHOWN_ERRORS)
    costs = arm_costs(arms, prices or {})
    longest = max((report.stages for report in reports), key=len)
    stages = ordered({s for report in reports for s in report.stages}, longest)
    return SweepContent(
        name=name,
        corpus_name=corpus_name or first.corpus.adapter,
        adapter=first.corpus.adapter,
        classes=first.classes,
        folds=every_fold,
        baseline=chosen,
        stages=tuple(stages),
        arms=tuple(
            _arm(arm, {s.seed for s in complete[arm.name]}, figures).model_copy(
                update={"alone": costs[arm.name][0], "added": costs[arm.name][1]}
            )
            for arm in arms
        ),
        missing=gaps,
        test_set=figures.test_set if figures else None,
        sentences=(
            *_about_protocols(arms, chosen),
            *about_gaps(arms, complete, chosen),
            *(figures.sentences if figures else ()),
        ),
        settings=_settings(arms),
        references=references_for(first.corpus.adapter, len(first.classes)),
        curves=curves_of(arms, stages),
        errors=errors,
        num_always_wrong=always,
        num_models=sum(len(arm.seeds) for arm in figures.arms) if figures else 0,
        cost=total_cost(arms, prices or {}),
        currency=currency,
    )


def _check_classes(arms: Sequence[ArmReports], classes: tuple[str, ...]) -> None:
    other = [
        f"{arm.name}, seed {seed.seed}: {', '.join(report.content.classes)}"
        for arm in arms
        for seed in arm.seeds
        for report in seed.reports
        if report.content.classes != classes
    ]
    if other:
        raise NotComparableError.of_all(
            f"the class list of the sweep is {', '.join(classes)}, but not that of every report:",
            other,
        )


def _about_protocols(arms: Sequence[ArmReports], baseline: str) -> Iterator[str]:
    protocols = {arm.name: found.name for arm in arms if (found := _protocol(arm))}
    for name, protocol in protocols.items():
        if protocols.get(baseline, protocol) != protocol:
            yield (
                f"{name} follows the protocol {protocol}, and the baseline {protocols[baseline]}: their "
                f"difference also comes from the use of test speakers in training or selection."
            )


def _arm(arm: ArmReports, complete: set[str], figures: Figures | None) -> SweepArm:
    protocol = _protocol(arm)
    compared = figures.compared.get(arm.name) if figures else None
    return SweepArm(
        name=arm.name,
        title=arm.title,
        protocol=protocol.name if protocol else None,
        statement=protocol.statement if protocol else "",
        warning=protocol.warning if protocol else None,
        seeds=tuple(seed.seed for seed in arm.seeds if seed.seed in complete),
        incomplete=tuple(seed.seed for seed in arm.seeds if seed.seed not in complete),
        cells=tuple(
            _cell(seed.seed, fold, report) for seed in arm.seeds for fold, report in seed.folds()
        ),
        figures=compared,
        confusion=figures.confusion(arm.name) if figures and compared else (),
        codebooks=tuple(codebook_rows(fold for seed in arm.seeds for fold, _ in seed.folds())),
    )


def _protocol(arm: ArmReports) -> Protocol | None:
    found = {r.content.protocol.name: r.content.protocol for s in arm.seeds for r in s.reports}
    if len(found) > 1:
        raise ValueError(f"{arm.name}: its reports follow several protocols: {sorted(found)}")
    return next(iter(found.values()), None)


def _cell(seed: str, fold: FoldContent, report: CellReport) -> SweepCell:
    shared = report.content.artefacts
    return SweepCell(
        seed=seed,
        fold=fold.name,
        uar=fold.outcome.scores.uar,
        war=fold.outcome.scores.war,
        num_test=fold.num_test,
        link=report.link,
        corpus=next((shared[kind] for kind in _CORPUS_KINDS if kind in shared), ""),
        model=shared.get(_MODEL, ""),
        artefacts=dict(fold.artefacts),
    )


def _settings(arms: Sequence[ArmReports]) -> tuple[SettingContent, ...]:
    """The keys whose values differ between arms, but not between the seeds of an arm."""
    by_arm = [[_flat(r.content) for seed in arm.seeds for r in seed.reports] for arm in arms]
    keys = dict.fromkeys(key for found in by_arm for flat in found for key in flat)
    settings = []
    for key in keys:
        values = [{flat.get(key, "") for flat in found} for found in by_arm]
        if all(len(each) <= 1 for each in values) and len(set.union(*values)) > 1:
            settings.append(
                SettingContent(key=key, values=tuple(min(each, default="") for each in values))
            )
    return tuple(settings)


def _flat(content: ReportContent) -> dict[str, str]:
    return {
        f"{section}.{key}" if key else section: value
        for section, lines in sections(content).items()
        for key, value in lines
    }
