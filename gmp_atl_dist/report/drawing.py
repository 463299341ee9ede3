"""What the report's pictures share: style, colours, panels, SVG bytes that are the same each time.

Drawn with matplotlib's objects, never pyplot, so that nothing is left in the process. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; text is drawn as outlines, so that a
page looks the same without our fonts.
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
"""The palest colours are dashed, so that lines differ in print as well."""

_STYLE: dict[RcKeyType, object] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same
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
    "text.parse_math": False,  # a class or fold may be named with a dollar sign
    "svg.hashsalt": "gmp-atl",  # element ids are random without it
    "svg.fonttype": "path",
}
_PANELS_PER_ROW = 3
_PANEL_INCHES = (3.1, 2.25)
_DPI = 72
"""What matplotlib lays SVG out with, whatever the images in it have."""
_GRID = 2**20
"""Of positions. Round decimals do not lie halfway between two of its lines, as of a decimal grid's."""


@contextmanager
def style() -> Iterator[None]:
    """Our style over matplotlib's defaults, whatever the user's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def panels(number: int) -> tuple[Figure, list[Axes]]:
    columns = min(number, _PANELS_PER_ROW)
    rows = math.ceil(number / columns)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows + 0.35), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(number)]


def svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    canvas = FigureCanvasSVG(figure)
    _lay_out(figure)
    # Metadata of None is left out; the date would make every report differ.
    blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.print_svg(out, metadata=blank)
    return out.getvalue()


def _lay_out(figure: Figure) -> None:
    """Place everything for good, at rounded positions.

    The solver of constrained layout sums in the order of addresses in memory, so that its last bits
    differ now and then. They show in a coordinate's last decimal, and in the ids of clipping
    rectangles, which matplotlib makes from all bits.
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
