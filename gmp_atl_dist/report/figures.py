"""The report's figures of scores and learning curves, as SVG: the same bytes for the same content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from gmp_atl_dist.report.codebook_content import (
    CodebookContent,
)
from gmp_atl_dist.report.content import (
    LARGEST_CLUSTER_SHARE,
    Matrix,
    Point,
)
from gmp_atl_dist.report.drawing import COLOURS, DASHES, panels, style, svg

_MAX_POINTS = 400
_FEW_POINTS = 12
"""Shorter lines get markers, because a single point would be invisible."""
_SHORT_NAME = 2


def confusion_svg(confusion: Matrix, classes: Sequence[str]) -> bytes:
    """Counts and row percentages of a (K, K) confusion matrix; rows are the truth."""
    counts = np.asarray(confusion, dtype=np.int64)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    size = len(classes)
    with style():
        side = 1.6 + 0.78 * size
        figure = Figure(figsize=(side + 0.9, side), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(size, size):
            share = f"{shares[row, column]:.1%}" if support[row, 0] else "none"
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{share}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "#1a1a1a",
                fontweight="bold" if row == column else "normal",
            )
        axes.set_xticks(range(size), classes, rotation=0 if size <= 5 else 40, ha=_align(size))
        axes.set_yticks(
            range(size), [f"{c}\n({n:,})" for c, n in zip(classes, support[:, 0], strict=True)]
        )
        axes.set_xlabel("predicted emotion")
        axes.set_ylabel("true emotion (utterances)")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1.0, decimals=0))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        return svg(figure)


def curves_svg(metrics: Mapping[str, Mapping[str, Sequence[Point]]]) -> bytes:
    """Learning curves of one stage: one panel per metric, one line per fold.

    A dotted line in the panel of the accuracy shows the share of the largest cluster, if the stage
    has it.

    Args:
        metrics: metric -> fold -> (step, value) points. Long lines are averaged over intervals.
    """
    folds = sorted({fold for lines in metrics.values() for fold in lines}, key=_natural)
    names = sorted(set(metrics) - {LARGEST_CLUSTER_SHARE})
    chance = [points[-1][1] for points in metrics.get(LARGEST_CLUSTER_SHARE, {}).values()]
    with style():
        figure, axes_of = panels(len(names))
        for axes, name in zip(axes_of, names, strict=True):
            for fold, points in sorted(metrics[name].items(), key=lambda item: _natural(item[0])):
                steps, values = thin(points)
                line = _line(fold, folds)
                line.set_data(steps, values)
                line.set_marker("o" if len(steps) < _FEW_POINTS else "")
                axes.add_line(line)
            axes.autoscale_view()
            axes.set_title(name)
            for share in chance if name.startswith("accuracy") else ():
                axes.axhline(share, color="#666666", linewidth=0.9, linestyle=":")
            axes.set_xlabel("step (updates)")
            axes.set_ylabel(name)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _legend(figure, folds)
        return svg(figure)


def codebooks_svg(folds: Mapping[str, Sequence[CodebookContent]]) -> bytes:
    """Usage of the codebooks: one panel per scale and group, one line per fold.

    Labels are sorted by frequency. The dotted line is uniform usage. A log scale cannot show labels
    that were never used; the title counts them.
    """
    names = sorted(folds, key=_natural)
    keys = sorted({(c.layer, c.k, c.group) for books in folds.values() for c in books})
    with style():
        figure, axes_of = panels(len(keys))
        for axes, (layer, k, group) in zip(axes_of, keys, strict=True):
            usages = []
            for name in names:
                for book in folds[name]:
                    if (book.layer, book.k, book.group) != (layer, k, group):
                        continue
                    usages.append(book.usage)
                    counts = np.sort(np.asarray(book.counts))[::-1]
                    shares = counts[counts > 0] / counts.sum()
                    line = _line(name, names)
                    line.set_data(np.arange(1, len(shares) + 1), shares)
                    axes.add_line(line)
            axes.autoscale_view()
            axes.axhline(1 / k, color="#666666", linewidth=0.9, linestyle=":")
            axes.set_yscale("log")
            # The default tick labels, powers of ten, need text.parse_math, which is turned off.
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            perplexity = _range([usage.perplexity for usage in usages], ".1f" if k < 100 else ".0f")
            empty = _range([usage.empty for usage in usages], "d")
            suffix = "" if group == "all" else f", {group}"
            axes.set_title(
                f"layer {layer}, k = {k:,}{suffix}\nperplexity {perplexity}, empty {empty}",
                fontsize=8.5,
            )
            axes.set_xlabel("label, by frequency")
            axes.set_ylabel("share of frames")
            axes.set_xlim(0, k + 1)
        _legend(figure, names)
        return svg(figure)


def thin(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """At most ``_MAX_POINTS`` (steps, values). Longer lines are averaged over intervals."""
    line = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    line = line[np.argsort(line[:, 0], kind="stable")]
    if len(line) > _MAX_POINTS:
        line = np.array([part.mean(axis=0) for part in np.array_split(line, _MAX_POINTS)])
    return line[:, 0].tolist(), line[:, 1].tolist()


def _line(fold: str, folds: Sequence[str], label: str = "") -> Line2D:
    """The line of a fold, without data: a colour per fold, or one colour for too many folds."""
    if len(folds) > len(COLOURS):
        return Line2D([], [], color=COLOURS[0], linewidth=0.8, alpha=0.45, label=label)
    i = folds.index(fold)
    return Line2D(
        [],
        [],
        color=COLOURS[i],
        linestyle=DASHES[i],
        linewidth=1.4,
        markersize=3.5,
        label=label,
    )


def _legend(figure: Figure, folds: Sequence[str]) -> None:
    shown = {fold: f"fold {fold}" if len(fold) <= _SHORT_NAME else fold for fold in folds}
    if len(folds) > len(COLOURS):
        shown = {folds[0]: f"each of {len(folds)} folds"}
    handles = [_line(fold, folds, label) for fold, label in shown.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _align(size: int) -> str:
    return "center" if size <= 5 else "right"


def _natural(name: str) -> tuple[int, str]:
    """A sort key that puts fold 2 before fold 10."""
    return (len(name), name)
