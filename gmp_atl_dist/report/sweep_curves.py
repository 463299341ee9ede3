"""Learning curves of a sweep: one chart per stage and arm, all seeds and folds in it, on equal axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup

from gmp_atl_dist.report.charts import DASHES, Chart
from gmp_atl_dist.report.content import Curves, Lines, Point, ReportContent
from gmp_atl_dist.report.curves import axes_of, smooth, thin
from gmp_atl_dist.report.palette import SIZE
from gmp_atl_dist.report.quantities import Quantity, quantities_of
from gmp_atl_dist.report.sweep_content import CurveContent, CurveLine
from gmp_atl_dist.report.sweep_input import ArmReports

_POINTS = 60
_DIGITS = 5
_MANY_LINES = 12


def curves_of(arms: Sequence[ArmReports], stages: Sequence[str]) -> tuple[CurveContent, ...]:
    """The curves by stage, then by arm.

    A stage shows its first accuracy with a known chance level, or else its first quantity, the loss.
    Accuracies can be compared between arms, and a seed that learnt nothing stays at chance.
    """
    present = {stage for arm in arms for _, _, curves, _ in _cells(arm) for stage in curves}
    order = [*(s for s in stages if s in present), *sorted(present - set(stages))]
    return tuple(
        found for stage in order for arm in arms if (found := _of_arm(arm, stage)) is not None
    )


def _cells(arm: ArmReports) -> Iterator[tuple[str, str, Curves, ReportContent]]:
    for seed in arm.seeds:
        for fold, report in seed.folds():
            yield seed.seed, fold.name, fold.curves, report.content


def _of_arm(arm: ArmReports, stage: str) -> CurveContent | None:
    cells = [cell for cell in _cells(arm) if cell[2].get(stage)]
    if not cells:
        return None
    content = cells[0][3]
    quantity = _chosen(stage, content)
    lines = [
        CurveLine(seed=seed, fold=fold, points=_thinned(curves[stage][quantity.metric]))
        for seed, fold, curves, _ in cells
        if curves[stage].get(quantity.metric)
    ]
    if not lines:
        return None
    return CurveContent(
        arm=arm.name,
        stage=stage,
        metric=quantity.metric,
        title=quantity.title,
        axis=quantity.axis,
        percent=quantity.percent,
        chance=quantity.chance,
        chance_name=quantity.chance_name,
        lines=tuple(lines),
    )


def _chosen(stage: str, content: ReportContent) -> Quantity:
    lines: Lines = content.curves_by_stage[stage]
    found = quantities_of(stage, lines, content)
    return next((q for q in found if q.percent and q.chance is not None), found[0])


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    line = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    line = line[np.argsort(line[:, 0], kind="stable")]
    shown = thin(np.column_stack([line[:, 0], smooth(line[:, 1])]), _POINTS)
    return tuple((round(step), float(f"{value:.{_DIGITS}g}")) for step, value in shown.tolist())


def line_style(seed: str, seeds: Sequence[str], many: bool) -> tuple[str, str]:
    """CSS classes and dashes of a seed. Its folds look alike."""
    number = seeds.index(seed)
    css = f"line l{number % SIZE} f{number % SIZE}"
    return f"{css} several" if many else css, DASHES[number % len(DASHES)]


def seeds_of(curves: Sequence[CurveContent]) -> list[str]:
    """Every seed that has a line, sorted."""
    return sorted({line.seed for curve in curves for line in curve.lines})


def stage_charts(curves: Sequence[CurveContent], seeds: Sequence[str]) -> list[Markup]:
    """A chart per arm of one stage. Charts of one metric have equal axes."""
    charts = []
    for curve in curves:
        quantity = Quantity(
            curve.metric, curve.title, curve.axis, curve.percent, curve.chance, curve.chance_name
        )
        alike = [c for c in curves if c.metric == curve.metric]
        points = np.array([p for c in alike for line in c.lines for p in line.points], dtype=float)
        levels = [c.chance for c in alike if c.chance is not None]
        # The axes hold the chance level of each arm.
        reach = np.array([(points[0, 0], level) for level in levels]).reshape(-1, 2)
        x, y = axes_of(np.concatenate([points, reach]), quantity)
        name = f"{curve.stage}, {curve.arm}: {curve.title}"
        chart = Chart(x, y, "update", quantity.axis, name)
        if curve.chance is not None:
            chart.level(curve.chance, curve.chance_name)
        for line in curve.lines:
            many = len(curve.lines) > _MANY_LINES
            chart.line(list(line.points), *line_style(line.seed, seeds, many))
        charts.append(chart.svg())
    return charts
