"""Charts as inline SVG: axes with ticks and labels, lines, points.

Colours are CSS classes, so that a chart follows the page's light or dark mode. Text is text, drawn with the
fonts of the reader, so that any script can be shown. A chart is small and has no title; the page puts
charts side by side as its width allows, and writes titles in HTML, which wraps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 330, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 8, 34
_TICKS_X, _TICKS_Y = 4, 5
DASHES = ("", "6 2", "2 2", "8 2 2 2", "1 3", "10 3")
"""Patterns of lines beyond the colour, so that lines differ in print as well."""

XY = tuple[float, float]


class Axis(NamedTuple):
    """The range of an axis, its ticks and their texts. ``log`` spaces by the logarithm."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(
    low: float, high: float, form: Callable[[float], str] | None = None, ticks: int = _TICKS_Y
) -> Axis:
    """An axis over ``low`` to ``high`` with about ``ticks`` round ticks; wider if both are equal."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _round_step((high - low) / ticks)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = tuple(i * step for i in range(first, last + 1))
    return Axis(low, high, values, tuple((form or _plain(step))(v) for v in values))


def log_axis(low: float, high: float, form: Callable[[float], str]) -> Axis:
    """A logarithmic axis. Ticks at 1, 2 and 5 times powers of ten, or at the powers alone."""
    if not high > low:
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        values = tuple(v for p in powers for d in digits if low <= (v := d * 10.0**p) <= high)
        if len(values) >= 3:
            break
    return Axis(low, high, values, tuple(form(v) for v in values), log=True)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(d for d in (1, 2, 2.5, 5, 10) if d * power >= rough * (1 - 1e-9))


def _plain(step: float) -> Callable[[float], str]:
    """Numbers with the decimals that ``step`` needs; powers of ten where these are many.

    The text must fit beside the axis.
    """

    def form(value: float) -> str:
        if value and (step < 1e-3 or abs(value) >= 1e6):
            digits, power = f"{value:.2e}".split("e")
            return f"{float(digits):g}e{int(power)}"
        if step < 1e-3:
            return "0"
        for decimals in range(6):
            if abs(step - round(step, decimals)) < step * 1e-6:
                return f"{value:,.{decimals}f}"
        return f"{value:g}"

    return form


@dataclass
class Chart:
    """A chart under construction. Coordinates are those of the axes.

    Args:
        label: what a screen reader says.
    """

    x: Axis
    y: Axis
    x_label: str
    y_label: str
    label: str
    _marks: list[str] = field(default_factory=list)

    def line(self, points: Sequence[XY], css: str, dash: str = "") -> None:
        """A line through ``points``; a single point becomes a dot."""
        if not points:
            return
        at = [self._at(point) for point in points]
        if len(at) == 1:
            self._marks.append(
                f'<circle class="dot {css}" cx="{at[0][0]}" cy="{at[0][1]}" r="2.5"/>'
            )
            return
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._marks.append(f'<path class="{css}" d="{_relative(at)}"{dashed}/>')

    def level(self, value: float, text: str = "") -> None:
        """A dotted horizontal line, such as chance, with a text at its right end."""
        y = self._at((self.x.low, value))[1]
        self._marks.append(f'<path class="chance" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
        if text:
            # Above the line, or below it at the top of the chart.
            at = y - 3 if y > _TOP + 14 else y + 11
            self._marks.append(
                f'<text class="note" x="{WIDTH - _RIGHT - 2}" y="{_short(at)}" '
                f'text-anchor="end">{escape(text)}</text>'
            )

    def point(self, point: XY, radius: float, shape: int) -> None:
        """A circle (0), a triangle (1) or a cross (2), in the colour of the enclosing group."""
        x, y = self._at(point)
        self._marks.append(symbol(x, y, radius, shape))

    def group(self, css: str) -> None:
        """Points until :meth:`end_group` have these CSS classes."""
        self._marks.append(f'<g class="{css}">')

    def end_group(self) -> None:
        self._marks.append("</g>")

    def svg(self) -> Markup:
        """The chart; the same text for the same content."""
        parts = [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self.label)}">'
        ]
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        for value, text in zip(self.x.ticks, self.x.labels, strict=True):
            x = self._at((value, self.y.low))[0]
            # A text in the middle of its tick would leave the picture at the right end.
            anchor = "end" if x > right - 12 else "middle"
            parts.append(f'<path class="grid" d="M{x} {_TOP}V{bottom + 3}"/>')
            parts.append(f'<text class="x tick" x="{x}" y="{bottom + 13}" ')
            parts.append(f'text-anchor="{anchor}">{escape(text)}</text>')
        for value, text in zip(self.y.ticks, self.y.labels, strict=True):
            y = self._at((self.x.low, value))[1]
            parts.append(f'<path class="grid" d="M{_LEFT - 3} {y}H{right}"/>')
            parts.append(f'<text class="y tick" x="{_LEFT - 5}" y="{_short(y + 3.5)}" ')
            parts.append(f'text-anchor="end">{escape(text)}</text>')
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
        parts += self._marks
        middle = (_TOP + bottom) / 2
        parts.append(
            f'<text class="x name" x="{(_LEFT + right) / 2:g}" y="{HEIGHT - 6}" '
            f'text-anchor="middle">{escape(self.x_label)}</text>'
            f'<text class="y name" x="10" y="{middle:g}" text-anchor="middle" '
            f'transform="rotate(-90 10 {middle:g})">{escape(self.y_label)}</text></svg>'
        )
        return Markup("".join(parts))

    def _at(self, point: XY) -> XY:
        """Pixels, rounded to tenths."""
        x = _LEFT + self.x.share(point[0]) * (WIDTH - _RIGHT - _LEFT)
        y = HEIGHT - _BOTTOM - self.y.share(point[1]) * (HEIGHT - _BOTTOM - _TOP)
        return _short(x), _short(y)


def symbol(x: float, y: float, radius: float, shape: int) -> str:
    """A circle (0), a triangle (1) or a cross (2) around a point."""
    if shape == 0:
        return f'<circle cx="{x}" cy="{y}" r="{_short(radius)}"/>'
    if shape == 1:
        side, top = _short(radius * 1.1), _short(y - radius * 1.2)
        return f'<path d="M{x} {top}l{side} {_short(2 * radius)}h{_short(-2 * side)}z"/>'
    arm = _short(radius * 0.8)
    left, top, side = _short(x - arm), _short(y - arm), _short(2 * arm)
    strokes = f"M{left} {top}l{side} {side}m0 {-side}l{-side} {side}"
    return f'<path class="cross" d="{strokes}"/>'


def _relative(points: Sequence[XY]) -> str:
    """A path with relative steps, which are short."""
    x, y = points[0]
    path = [f"M{x:g} {y:g}l"]
    for next_x, next_y in points[1:]:
        path.append(f"{next_x - x:.1f} {next_y - y:.1f}".replace(".0", ""))
        x, y = next_x, next_y
    return path[0] + " ".join(path[1:]).replace(" -", "-")


def _short(value: float) -> float:
    """Tenths of a pixel; whole numbers without a decimal."""
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded
