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
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
    # Metadata of None is left out; the date would make every report differ.
    blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(out, metadata=blank)
    return out.getvalue()
