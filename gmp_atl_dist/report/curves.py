"""Learning curves: one chart per quantity, smoothed, with the raw values faint behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from gmp_atl_dist.report.charts import DASHES, Axis, Chart, linear_axis
from gmp_atl_dist.report.content import Lines, Point, ReportContent
from gmp_atl_dist.report.palette import SIZE
from gmp_atl_dist.report.quantities import Quantity, quantities_of

_SMOOTH_SHARE = 0.06
"""Width of the moving average, as a share of the points."""
_MIN_TO_SMOOTH = 30
_RAW_POINTS = 200
_SMOOTH_POINTS = 120
_MAX_RAW_FOLDS = 5
"""With more folds the raw values of all would hide the lines."""
_MANY_FOLDS = 12
_X_TICKS = 4


class Panel(NamedTuple):
    """A chart, its title, and a line about it; the page writes both."""

    title: str
    chart: Markup
    note: str = ""


def stage_panels(stage: str, lines: Lines, content: ReportContent) -> list[Panel]:
    """The panels of one stage."""
    folds = [fold.name for fold in content.folds]
    return [
        Panel(quantity.title, _chart(stage, quantity, lines[quantity.metric], folds))
        for quantity in quantities_of(stage, lines, content)
    ]


def line_style(fold: str, folds: Sequence[str]) -> tuple[str, str]:
    """CSS classes and dashes of a fold: a colour each, or one colour for too many folds."""
    if len(folds) > _MANY_FOLDS:
        return "line l0 many", ""
    number = folds.index(fold)
    return f"line l{number % SIZE} f{number % SIZE}", DASHES[number % len(DASHES)]


def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A moving average [N]. Short lines are kept.

    It is centred, also at the beginning, where it covers fewer values: lines are steep there. At the
    end it covers the values that there are, because lines are flat there, and a single value says little.
    """
    if len(values) < _MIN_TO_SMOOTH:
        return values
    half = max(1, round(len(values) * _SMOOTH_SHARE / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(half, at)
    stop = np.minimum(at + reach + 1, len(values))
    return (sums[stop] - sums[at - reach]) / (stop - (at - reach))


def thin(line: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """At most ``most`` points [N, 2] of (step, value). Longer lines are averaged over intervals."""
    if len(line) <= most:
        return line
    return np.array([part.mean(axis=0) for part in np.array_split(line, most)])


def _chart(
    stage: str, quantity: Quantity, by_fold: Mapping[str, Sequence[Point]], folds: Sequence[str]
) -> Markup:
    raw = {fold: _sorted(by_fold[fold]) for fold in folds if len(by_fold.get(fold, ()))}
    shown = {
        fold: thin(np.column_stack([line[:, 0], smooth(line[:, 1])]), _SMOOTH_POINTS)
        for fold, line in raw.items()
    }
    behind = {
        fold: thin(line, _RAW_POINTS)
        for fold, line in raw.items()
        if len(line) >= _MIN_TO_SMOOTH and len(folds) <= _MAX_RAW_FOLDS
    }
    every = [*shown.values(), *behind.values()] or [np.zeros((1, 2))]
    x, y = axes_of(np.concatenate(every), quantity)
    chart = Chart(x, y, "update", quantity.axis, f"{stage}: {quantity.title}")
    for fold, line in behind.items():
        css, _ = line_style(fold, folds)
        chart.line(_pairs(line), f"{css} raw")
    if quantity.chance is not None:
        chart.level(quantity.chance, quantity.chance_name)
    for fold, line in shown.items():
        chart.line(_pairs(line), *line_style(fold, folds))
    return chart.svg()


def axes_of(points: npt.NDArray[np.float64], quantity: Quantity) -> tuple[Axis, Axis]:
    """Axes that hold ``points`` [N, 2] and chance."""
    steps, values = points[:, 0], points[:, 1]
    low, high = float(values.min()), float(values.max())
    if quantity.chance is not None:
        low, high = min(low, quantity.chance), max(high, quantity.chance)
    pad = 0.05 * (high - low)
    low, high = low - pad, high + pad
    x = linear_axis(float(steps.min()), float(steps.max()), _whole, _X_TICKS)
    if not quantity.percent:
        # A loss or a rate is not negative; the margin below it would show such ticks.
        return x, linear_axis(0.0 if low < 0 <= low + 2 * pad else low, high)
    low, high = max(0.0, low), min(1.0, high)
    if high - low < 0.02:
        low, high = max(0.0, low - 0.01), min(1.0, high + 0.01)
    return x, linear_axis(low, high, _percent)


def _sorted(points: Sequence[Point]) -> npt.NDArray[np.float64]:
    line = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return line[np.argsort(line[:, 0], kind="stable")]


def _pairs(line: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in line.tolist()]


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _percent(value: float) -> str:
    return f"{round(100 * value, 2):g} %"
