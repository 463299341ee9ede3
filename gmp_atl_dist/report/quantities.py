"""The metrics of learning curves: their names for people, their units, and chance where it is known."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.metrics import label_usage
from gmp_atl_dist.report.content import (
    LARGEST_CLUSTER_SHARE,
    CodebookContent,
    FoldContent,
    Lines,
    ReportContent,
)

_NAMES = {
    "loss": "loss, all terms",
    "learning_rate": "learning rate",
    "head_learning_rate": "learning rate of the head",
    "gradient_norm": "norm of the gradient",
    "emotion_accuracy": "accuracy, emotion",
    "gender_accuracy": "accuracy, gender",
    "accuracy_with_margin": "accuracy with margin",
    "training_accuracy": "accuracy",
    "selection_uar": "UAR for the choice of the epoch",
}
_AXES = {"accuracy": "accuracy", "uar": "UAR", "loss": "loss", "gradient": "norm", "rate": "rate"}
"""Part of a metric's name -> name of the axis."""
_OF_SCALE = re.compile(r"(accuracy|loss)_scale(\d+)")
_FIRST = ("loss", "accuracy", "emotion_accuracy", "gender_accuracy")
_LAST = ("gradient_norm", "learning_rate", "head_learning_rate")


@dataclass(frozen=True, slots=True)
class Quantity:
    """What one panel shows. ``chance`` is None where it is not known; ``chance_name`` says what it is."""

    metric: str
    title: str
    axis: str
    percent: bool
    chance: float | None = None
    chance_name: str = ""


def quantities_of(stage: str, lines: Lines, content: ReportContent) -> list[Quantity]:
    """The panels of a stage in order: losses, accuracies, then what drives the training."""
    scales = {int(m[2]) for name in lines if (m := _OF_SCALE.fullmatch(name))}
    # The codebooks of pretraining are not part of the report.
    books = {} if stage.startswith("pretrain") else _books_by_scale(content.folds)
    found = [
        _quantity(name, len(scales), books, lines, content)
        for name in lines
        if name != LARGEST_CLUSTER_SHARE
    ]
    return sorted(found, key=lambda q: (_rank(q.metric), q.metric))


def _rank(metric: str) -> int:
    if metric in _LAST:
        return 90 + _LAST.index(metric)
    if metric in _FIRST:
        return _FIRST.index(metric)
    return 50


def _quantity(
    metric: str,
    num_scales: int,
    books: Mapping[int, Sequence[CodebookContent]],
    lines: Lines,
    content: ReportContent,
) -> Quantity:
    percent = "accuracy" in metric or "uar" in metric
    axis = next((word for word in _AXES if word in metric), "value")
    axis = _AXES.get(axis, axis)
    if match := _OF_SCALE.fullmatch(metric):
        kind, scale = match[1], int(match[2])
        name = f"{kind}: {_scale_name(books.get(scale, ()), scale)}"
        if num_scales == 1 and scale not in books:
            name = f"{kind} on masked frames"
        chance = _scale_chance(kind, books.get(scale, ()), lines)
        label = "most frequent label" if kind == "accuracy" else "label frequencies alone"
        return Quantity(metric, name, axis, percent, chance, label)
    title = _NAMES.get(metric, metric.replace("_", " "))
    if metric == "selection_uar":
        return Quantity(metric, title, axis, percent, 1 / len(content.classes), "chance")
    genders = metric == "gender_accuracy"
    if genders or metric in ("emotion_accuracy", "accuracy_with_margin", "training_accuracy"):
        shares = [
            _majority(f.train_per_gender if genders else f.train_per_class) for f in content.folds
        ]
        known = [share for share in shares if share is not None]
        if known:
            name = "most frequent gender" if genders else "most frequent class"
            return Quantity(metric, title, axis, percent, sum(known) / len(known), name)
    return Quantity(metric, title, axis, percent)


def _books_by_scale(folds: Sequence[FoldContent]) -> dict[int, list[CodebookContent]]:
    books: dict[int, list[CodebookContent]] = {}
    for fold in folds:
        for book in fold.codebooks:
            books.setdefault(book.scale, []).append(book)
    return books


def _scale_name(books: Sequence[CodebookContent], scale: int) -> str:
    if not books:
        return f"scale {scale + 1}"
    # Codebooks by gender share a scale, and the head predicts the labels of both.
    by_group = {book.group: book.k for book in books}
    return f"layer {books[0].layer}, k = {' + '.join(f'{k:,}' for k in by_group.values())}"


def _scale_chance(kind: str, books: Sequence[CodebookContent], lines: Lines) -> float | None:
    """Mean over folds of the best score that ignores the audio.

    Accuracy: the share of the most frequent label. Loss: the entropy of the labels, in nats.
    """
    shares = [points[-1][1] for points in lines.get(LARGEST_CLUSTER_SHARE, {}).values() if points]
    if shares and kind == "accuracy":
        return sum(shares) / len(shares)
    if not books:
        return None
    groups = len({book.group for book in books})
    values = []
    for start in range(0, len(books), groups):
        counts = np.concatenate([book.counts for book in books[start : start + groups]])
        if not counts.sum():
            continue
        usage = label_usage(counts)
        values.append(usage.top_share if kind == "accuracy" else math.log(usage.perplexity))
    return sum(values) / len(values) if values else None


def _majority(counts: Mapping[str, int]) -> float | None:
    total = sum(counts.values())
    return max(counts.values()) / total if total else None
