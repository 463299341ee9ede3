"""The report's figures of codebooks: a map of centroids, and labels over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gmp_atl_dist.report.codebook_content import (
    CodebookContent,
    TimelineContent,
)
from gmp_atl_dist.report.drawing import COLOURS, panels, style, svg

_MARKERS = ("o", "^")
_UNUSED = "#bbbbbb"
_FRAMES_PER_S = 50
_STRIP_INCHES = (7.2, 0.3)


def centroids_svg(
    books: Sequence[CodebookContent], classes: Sequence[str], genders: Sequence[str]
) -> bytes | None:
    """Centroids in their principal plane, one panel per codebook; None if no codebook has a map.

    The colour is the most frequent emotion of a centroid's frames, the shape their most frequent
    gender. The area grows with the number of frames.
    """
    drawn = [book for book in books if book.map is not None]
    if not drawn:
        return None
    with style():
        figure, axes_of = panels(len(drawn))
        for axes, book in zip(axes_of, drawn, strict=True):
            if book.map is None:
                continue
            xy = np.array(book.map.points)
            area = 8 + 90 * np.sqrt(np.array(book.counts) / max(1, *book.counts))
            emotions = np.array([-1 if e is None else e for e in book.map.emotions])
            of_gender = np.array([-1 if g is None else g for g in book.map.genders])
            for emotion, gender in sorted(
                {*zip(emotions.tolist(), of_gender.tolist(), strict=True)}
            ):
                selected = (emotions == emotion) & (of_gender == gender)
                axes.scatter(
                    xy[selected, 0],
                    xy[selected, 1],
                    s=area[selected],
                    c=_colour(emotion),
                    marker=_MARKERS[gender % len(_MARKERS)] if gender >= 0 else "x",
                    alpha=0.75,
                    linewidths=0.5,
                )
            group = "" if book.group == "all" else f", {book.group}"
            axes.set_title(f"layer {book.layer}, k = {book.k:,}{group}")
            axes.set_xticklabels([])
            axes.set_yticklabels([])
            axes.set_xlabel("first component")
            axes.set_ylabel("second component")
        _legend(figure, classes, genders)
        return svg(figure)


def timelines_svg(timelines: Sequence[TimelineContent]) -> bytes:
    """Labels over time: one block per utterance, one strip per scale, one colour per label.

    Labels with neighbouring ids look alike if there are more labels than colours. The figure shows
    where labels change.
    """
    strips = sum(len(t.scales) for t in timelines)
    width, height = _STRIP_INCHES
    with style():
        figure = Figure(
            figsize=(width, height * strips + 0.75 * len(timelines) + 0.3), layout="constrained"
        )
        blocks = figure.subfigures(len(timelines), 1, squeeze=False)[:, 0]
        for block, timeline in zip(blocks, timelines, strict=True):
            block.suptitle(
                f"{timeline.utterance_id} ({timeline.emotion}, {timeline.gender})", fontsize=8.5
            )
            axes_of = block.subplots(len(timeline.scales), 1, sharex=True, squeeze=False)[:, 0]
            for axes, scale in zip(axes_of, timeline.scales, strict=True):
                seconds = len(scale.labels) / _FRAMES_PER_S
                axes.imshow(
                    np.array(scale.labels, dtype=np.float64).reshape(1, -1) / max(1, scale.k - 1),
                    aspect="auto",
                    cmap="turbo",
                    vmin=0,
                    vmax=1,
                    interpolation="nearest",
                    extent=(0, max(seconds, 1 / _FRAMES_PER_S), 0, 1),
                )
                axes.set_yticks([])
                axes.grid(visible=False)
                axes.set_ylabel(
                    f"L{scale.layer} k{scale.k}", rotation=0, ha="right", va="center", fontsize=7.5
                )
            axes_of[-1].set_xlabel("seconds", fontsize=7.5)
        return svg(figure)


def _colour(emotion: int) -> str:
    return _UNUSED if emotion < 0 else COLOURS[emotion % len(COLOURS)]


def _legend(figure: Figure, classes: Sequence[str], genders: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=_colour(i), marker="s", linestyle="", label=name)
        for i, name in enumerate(classes)
    ] + [
        Line2D([], [], color="#444444", marker=_MARKERS[i], linestyle="", label=name)
        for i, name in enumerate(genders)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))
