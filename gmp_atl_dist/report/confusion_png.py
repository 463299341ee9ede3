"""The confusion matrix as a PNG for slides. The page itself has it as a table.

matplotlib's objects are used, never pyplot, so that no state is left in the process.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gmp_atl_dist.report.outcome import Matrix

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_DPI = 110
_LONGEST = 18
_FONT = "DejaVu Sans"  # included in matplotlib, so every machine draws the same
_STYLE: dict[RcKeyType, object] = {
    "font.family": _FONT,
    "font.size": 9.0,
    "text.parse_math": False,  # names of classes may contain a dollar sign
    "figure.facecolor": "white",
}


def confusion_png(confusion: Matrix, classes: Sequence[str]) -> bytes:
    """Counts and row percentages of a (K, K) confusion matrix; rows are the truth.

    The font cannot draw every script. Classes with other letters are called by their number.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(confusion, dtype=np.int64)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    size = len(classes)
    names = drawn_names(classes)
    with _style():
        side = 1.3 + 0.75 * size
        figure = Figure(figsize=(side + 0.5, side), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(size, size):
            share = f"{shares[row, column]:.0%}" if support[row, 0] else "none"
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{share}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "#1a1a1a",
                fontweight="bold" if row == column else "normal",
            )
        axes.set_xticks(range(size), names, rotation=0 if size <= 5 else 40, ha=_align(size))
        axes.set_yticks(
            range(size), [f"{n} ({c:,})" for n, c in zip(names, support[:, 0], strict=True)]
        )
        axes.set_xlabel("predicted emotion")
        axes.set_ylabel("true emotion (utterances)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def drawn_names(classes: Sequence[str]) -> list[str]:
    """The names as the PNG shows them."""
    return [
        _cropped(name) if _can_draw(name) else f"class {i}" for i, name in enumerate(classes, 1)
    ]


def _can_draw(name: str) -> bool:
    from matplotlib import font_manager, ft2font

    known = ft2font.FT2Font(font_manager.findfont(_FONT)).get_charmap()
    # Scripts that are written from right to left would need shaping, which not every build has.
    return all(
        ord(c) in known and unicodedata.bidirectional(c) not in ("R", "AL") for c in name
    ) and not any(unicodedata.combining(c) for c in name)


def _cropped(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _align(size: int) -> str:
    return "center" if size <= 5 else "right"


@contextmanager
def _style() -> Iterator[None]:
    """Our style with matplotlib's defaults, independent of the user's matplotlibrc."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield
