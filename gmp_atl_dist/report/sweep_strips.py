"""Rows of intervals and points over one axis, as inline SVG: forest plots, and scores of speakers.

Each row is a picture of its own without a fixed width: positions are percentages. So labels beside it are
HTML text, which wraps and can be in any script, and a row is as readable on a telephone as on a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from gmp_atl_dist.metrics import Bounds
from gmp_atl_dist.report.charts import Axis, linear_axis, symbol
from gmp_atl_dist.report.palette import SIZE
from gmp_atl_dist.report.sweep_content import SweepArm, SweepContent

_HEIGHT, _MIDDLE = 22, 11
_PAD = 0.06
_TICKS = 6
_SHAPES = 3
_EDGE = 8.0
"""Percent from which on the text of a tick would leave the picture."""


@dataclass(frozen=True, slots=True)
class StripRow:
    """A row: what it is, a soft second line, its picture, and the value as text."""

    name: str
    title: str
    picture: Markup
    value: str = ""


@dataclass(frozen=True, slots=True)
class Strips:
    """Rows above a common axis."""

    rows: tuple[StripRow, ...]
    axis: Markup


def arm_style(number: int) -> tuple[str, int]:
    """CSS class and shape of an arm. Both change, so that more arms than colours can be told apart."""
    return f"f{number % SIZE}", (number + number // SIZE) % _SHAPES


def score_strips(content: SweepContent, score: str) -> Strips:
    """The interval of each arm, its mean, the value of each seed's folds together, and chance."""
    arms = [(arm, arm.figures.scores[score]) for arm in content.arms if arm.figures]
    chance = 1 / len(content.classes) if score == "uar" else None
    values = [v for _, e in arms for v in (*e.interval, e.over_seeds.lowest, e.over_seeds.highest)]
    axis = _axis([*values, *([chance] if chance is not None else [])], percent=True)
    rows = []
    for arm, estimate in arms:
        over = estimate.over_seeds
        low, high = estimate.interval
        seeds = [over.lowest, over.highest] if over.n > 1 else []
        rows.append(
            StripRow(
                arm.name,
                arm.title,
                _row(
                    axis,
                    _label(arm.name, over.mean, estimate.interval),
                    over.mean,
                    estimate.interval,
                    line=chance,
                    ends=seeds,
                ),
                f"{100 * over.mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
            )
        )
    return Strips(tuple(rows), _ticks(axis))


def difference_strips(content: SweepContent, score: str) -> Strips:
    """The difference of each arm to the baseline, with its paired interval, and zero."""
    arms = [
        (arm, arm.figures.difference.scores[score])
        for arm in content.arms
        if arm.figures and arm.figures.difference
    ]
    axis = _axis([0.0, *(v for _, d in arms for v in d.interval)], percent=False)
    rows = [
        StripRow(
            arm.name,
            arm.title,
            _row(axis, _label(arm.name, d.value, d.interval), d.value, d.interval, line=0.0),
            f"{100 * d.value:+.1f} ({100 * d.interval[0]:+.1f} to {100 * d.interval[1]:+.1f})",
        )
        for arm, d in arms
    ]
    return Strips(tuple(rows), _ticks(axis))


def part_strips(content: SweepContent, by: str) -> Strips:
    """The UAR of each speaker or gender, a point per arm, lowest mean over arms first."""
    chance = 1 / len(content.classes)
    found: dict[str, list[tuple[int, SweepArm, float]]] = {}
    for number, arm in enumerate(content.arms):
        for part in arm.figures.parts.get(by, ()) if arm.figures else ():
            found.setdefault(part.name, []).append((number, arm, part.uar_left_out.mean))
    everything = [value for points in found.values() for *_, value in points]
    axis = _axis([chance, *everything], percent=True)
    means = {n: sum(v for *_, v in points) / len(points) for n, points in found.items()}
    rows = []
    for name in sorted(found, key=lambda n: (means[n], n)):
        points = found[name]
        label = f"{name}: " + ", ".join(f"{arm.name} {100 * v:.1f} %" for _, arm, v in points)
        low, high = min(v for *_, v in points), max(v for *_, v in points)
        marks = [_span(axis, (low, high), "reach"), _rule(axis, chance)]
        marks += [_mark(axis, value, *arm_style(number)) for number, _, value in points]
        rows.append(StripRow(name, "", _svg(label, marks), f"{100 * means[name]:.1f} %"))
    return Strips(tuple(rows), _ticks(axis))


def legend_symbol(number: int) -> Markup:
    """The mark of an arm for a legend."""
    css, shape = arm_style(number)
    return Markup(
        f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><g class="{css} mark {_line(css)}">'
        f"{symbol(6, 6, 4, shape)}</g></svg>"
    )


def _line(css: str) -> str:
    return css.replace("f", "l", 1)


def _axis(values: Sequence[float], *, percent: bool) -> Axis:
    low, high = min(values), max(values)
    pad = _PAD * ((high - low) or 0.1)
    low, high = low - pad, high + pad
    if percent:
        low, high = max(0.0, low), min(1.0, high)
        return linear_axis(low, high, lambda v: f"{100 * v:g} %", _TICKS)
    return linear_axis(low, high, lambda v: f"{100 * v:+g}" if v else "0", _TICKS)


def _label(name: str, value: float, bounds: Bounds) -> str:
    return f"{name}: {100 * value:.1f}, from {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def _row(
    axis: Axis,
    label: str,
    value: float,
    bounds: Bounds,
    *,
    line: float | None,
    ends: Sequence[float] = (),
) -> Markup:
    marks = [] if line is None else [_rule(axis, line)]
    marks += [_span(axis, bounds, "interval"), *(_end(axis, bound) for bound in bounds)]
    marks += [f'<circle class="seed" cx="{_at(axis, end)}%" cy="{_MIDDLE}" r="3"/>' for end in ends]
    marks.append(f'<circle class="mean" cx="{_at(axis, value)}%" cy="{_MIDDLE}" r="4.5"/>')
    return _svg(label, marks)


def _svg(label: str, marks: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart strip" role="img" aria-label="{escape(label)}">{"".join(marks)}</svg>'
    )


def _at(axis: Axis, value: float) -> str:
    return f"{100 * axis.share(value):.2f}".rstrip("0").rstrip(".")


def _rule(axis: Axis, value: float) -> str:
    x = _at(axis, value)
    return f'<line class="rule" x1="{x}%" x2="{x}%" y1="0" y2="{_HEIGHT}"/>'


def _span(axis: Axis, bounds: Bounds, css: str) -> str:
    a, b = (_at(axis, bound) for bound in bounds)
    return f'<line class="{css}" x1="{a}%" x2="{b}%" y1="{_MIDDLE}" y2="{_MIDDLE}"/>'


def _end(axis: Axis, value: float) -> str:
    x = _at(axis, value)
    return f'<line class="interval" x1="{x}%" x2="{x}%" y1="{_MIDDLE - 4}" y2="{_MIDDLE + 4}"/>'


def _mark(axis: Axis, value: float, css: str, shape: int) -> str:
    return (
        f'<svg x="{_at(axis, value)}%" y="{_MIDDLE}" overflow="visible">'
        f'<g class="{css} mark {_line(css)}">{symbol(0, 0, 4.5, shape)}</g></svg>'
    )


def _ticks(axis: Axis) -> Markup:
    """The axis below the rows."""
    parts = ['<svg class="chart strip ticks" aria-hidden="true">']
    parts.append('<line class="axis" x1="0" x2="100%" y1="1" y2="1"/>')
    for value, text in zip(axis.ticks, axis.labels, strict=True):
        x = 100 * axis.share(value)
        anchor = "start" if x < _EDGE else "end" if x > 100 - _EDGE else "middle"
        parts.append(f'<line class="axis" x1="{x:.2f}%" x2="{x:.2f}%" y1="1" y2="5"/>')
        parts.append(
            f'<text class="tick" x="{x:.2f}%" y="16" text-anchor="{anchor}">{escape(text)}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))
