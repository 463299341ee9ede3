"""Charts of codebooks: how often labels are used, and a map of the centroids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from gmp_atl_dist.report.charts import Chart, linear_axis, log_axis, symbol
from gmp_atl_dist.report.codebook_content import CodebookContent
from gmp_atl_dist.report.curves import Panel, line_style
from gmp_atl_dist.report.palette import SIZE

_MOST_POINTS = 120
MOST_CENTROIDS = 500
"""Of a map; those with the most frames are drawn."""
_CROSS = 2


def usage_panels(folds: Mapping[str, Sequence[CodebookContent]]) -> list[Panel]:
    """Share of frames by label, most frequent first: a chart per scale and group, a line per fold.

    The dotted line is uniform usage. A logarithmic axis cannot show labels without frames; the title
    counts them.
    """
    names = list(folds)
    keys = sorted({(c.layer, c.k, c.group) for books in folds.values() for c in books})
    return [_usage(key, folds, names) for key in keys]


def _usage(
    key: tuple[int, int, str], folds: Mapping[str, Sequence[CodebookContent]], names: Sequence[str]
) -> Panel:
    layer, k, group = key
    books = [(n, b) for n in names for b in folds[n] if (b.layer, b.k, b.group) == key]
    lines = [(name, _shares(book)) for name, book in books if any(book.counts)]
    values = [share for _, line in lines for _, share in line] + [1 / k]
    chart = Chart(
        linear_axis(1, max(2, k), lambda v: f"{v:,.0f}", 4),
        log_axis(min(values) / 1.2, max(values) * 1.2, lambda v: f"{100 * v:g} %"),
        "label, most frequent first",
        "share of frames",
        f"usage of the labels of {_name(layer, k, group)}",
    )
    chart.level(1 / k, "uniform")
    for name, line in lines:
        chart.line(line, *line_style(name, names))
    perplexity = _range([b.usage.perplexity for _, b in books], ".1f" if k < 100 else ".0f")
    empty = _range([b.usage.empty for _, b in books], "d")
    note = f"perplexity {perplexity}, empty clusters {empty}"
    return Panel(_name(layer, k, group), chart.svg(), note)


def _shares(book: CodebookContent) -> list[tuple[float, float]]:
    """(rank, share) of used labels; of many labels, some ranks."""
    counts = np.sort(np.asarray(book.counts))[::-1]
    shares = counts[counts > 0] / counts.sum()
    ranks = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), _MOST_POINTS)).astype(int))
    return [(rank + 1, float(shares[rank])) for rank in ranks.tolist()]


def map_panels(books: Sequence[CodebookContent]) -> list[Panel]:
    """Centroids in their two principal directions: a chart per codebook that has a map.

    The colour is the most frequent emotion of a centroid's frames, the shape their most frequent
    gender. The area grows with the number of frames.
    """
    return [Panel(_name(b.layer, b.k, b.group), _map(b)) for b in books if b.map is not None]


def _map(book: CodebookContent) -> Markup:
    if book.map is None:
        raise ValueError("a codebook without a map")
    xy = np.array(book.map.points)
    counts = np.array(book.counts)
    order = np.argsort(-counts, kind="stable")[:MOST_CENTROIDS].tolist()
    radius = 1.6 + 4.2 * np.sqrt(np.sqrt(counts / max(1, counts.max())))
    low, high = xy.min(axis=0), xy.max(axis=0)
    pad = 0.06 * (high - low)
    x, y = (linear_axis(float(a), float(b)) for a, b in zip(low - pad, high + pad, strict=True))
    title = f"centroids of {_name(book.layer, book.k, book.group)}"
    chart = Chart(x, y, "first component", "second component", title)
    for emotion in sorted({-1 if e is None else e for e in book.map.emotions}):
        chart.group("unused" if emotion < 0 else f"point f{emotion % SIZE} l{emotion % SIZE}")
        for i in order:
            if (-1 if book.map.emotions[i] is None else book.map.emotions[i]) != emotion:
                continue
            gender = book.map.genders[i]
            shape = _CROSS if gender is None else gender % 2
            chart.point((xy[i, 0], xy[i, 1]), float(radius[i]), shape)
        chart.end_group()
    return chart.svg()


def shape_svg(shape: int) -> Markup:
    """A symbol for the legend."""
    return Markup(
        f'<svg class="swatch point" viewBox="0 0 12 12" aria-hidden="true">{symbol(6, 6, 4, shape)}</svg>'
    )


def _name(layer: int, k: int, group: str) -> str:
    return f"layer {layer}, k = {k:,}{'' if group == 'all' else f', {group}'}"


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
