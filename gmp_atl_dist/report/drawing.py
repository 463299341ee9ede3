"""Common parts of the report's figures: style, colours, panels, and reproducible SVG bytes.

Figures use matplotlib's objects, never pyplot, so that no state is left in the process. The colours
are those of Okabe and Ito, which colour-blind readers can distinguish. Text is drawn as outlines, so
that a page looks the same without our fonts.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "-", "-", "-", "-", "--", ":")
"""Lines in the palest colours are dashed, so that they also differ in print."""

_STYLE: dict[RcKeyType, object] = {
    "font.family": "DejaVu Sans",  # included in matplotlib, so every machine draws the same
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and folds may contain a dollar sign
    "svg.hashsalt": "gmp-atl",  # otherwise element ids are random
    "svg.fonttype": "path",
}
_PANELS_PER_ROW = 3
_PANEL_INCHES = (3.1, 2.25)
_DPI = 72
"""The resolution at which matplotlib lays out an SVG, whatever images it contains."""
_GRID = 2**20
"""Positions are rounded to multiples of 1 / _GRID. Unlike with a decimal grid, round decimals do not
lie halfway between two multiples."""


@contextmanager
def style() -> Iterator[None]:
    """Use our style with matplotlib's defaults, independent of the user's matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``number`` panels in rows."""
    columns = min(number, _PANELS_PER_ROW)
    rows = math.ceil(number / columns)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows + 0.35), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(number)]


def svg(figure: Figure) -> bytes:
    """The figure as SVG; the same bytes for the same figure."""
    out = io.BytesIO()
    canvas = FigureCanvasSVG(figure)
    _lay_out(figure)
    # Metadata that is None is omitted. The date would make every report different.
    blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.print_svg(out, metadata=blank)
    return out.getvalue()


def _lay_out(figure: Figure) -> None:
    """Fix the positions of all elements, rounded.

    The solver of the constrained layout sums in the order of memory addresses, so the last bits of
    its results vary. They would appear in the last decimal of a coordinate, and in the ids of
    clipping rectangles, which matplotlib computes from all bits.
    """
    image_dpi = figure.dpi
    figure.set_dpi(_DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for block in figure.subfigs:
        block.bbox_relative.set(_rounded(block.bbox_relative))
    for axes in figure.axes:
        axes.set_position(_rounded(axes.get_position(original=True)))
    figure.set_dpi(image_dpi)


def _rounded(box: BboxBase) -> Bbox:
    return Bbox(np.round(box.get_points() * _GRID) / _GRID)
