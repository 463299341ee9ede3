"""Rows of the page's tables, computed from the content of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.metrics import ClusterQuality
from gmp_atl_dist.report.codebook_content import CodebookContent
from gmp_atl_dist.report.content import FoldContent, ReportContent


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The pooled scores of a class; lowest and highest recall of the folds with test utterances of it."""

    name: str
    support: int
    recall: float
    precision: float | None
    f1: float
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class CodebookRow:
    """A scale and group. All values except the first three are means over folds."""

    layer: int
    k: int
    group: str
    used: float
    empty: float
    perplexity: float
    top_share: float
    emotion_purity: float | None
    emotion_pnmi: float | None
    gender_purity: float | None
    gender_pnmi: float | None
    speaker_purity: float | None
    speaker_pnmi: float | None
    tiny: float
    origin: str
    mean_squared_distance: float | None
    iterations: float | None
    relocated: float | None
    stability: float | None


def class_rows(content: ReportContent) -> list[ClassRow]:
    scores = content.pooled.outcome.scores
    predicted = np.sum(content.pooled.outcome.confusion, axis=0).tolist()
    rows = []
    for i, name in enumerate(content.classes):
        hits = content.pooled.outcome.confusion[i][i]
        tested = [f.outcome.scores for f in content.folds if f.outcome.scores.support[i]]
        recalls = [fold.recalls[i] for fold in tested]
        rows.append(
            ClassRow(
                name=name,
                support=scores.support[i],
                recall=scores.recalls[i],
                precision=hits / predicted[i] if predicted[i] else None,
                f1=2 * hits / max(1, scores.support[i] + predicted[i]),
                lowest=min(recalls, default=None),
                highest=max(recalls, default=None),
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class GenderFacts:
    """What must be known to compare genders: test speakers, and the classes that UAR leaves out."""

    name: str
    num_speakers: int
    num_classes: int
    missing: tuple[str, ...]


def gender_facts(content: ReportContent) -> dict[str, GenderFacts]:
    """By the name of the gender."""
    genders = [speaker.gender for speaker in content.groups.speakers]
    return {
        group.name: GenderFacts(
            name=group.name,
            num_speakers=genders.count(group.name),
            num_classes=group.num_classes,
            missing=tuple(
                name
                for name, recall in zip(content.classes, group.recalls, strict=True)
                if recall is None
            ),
        )
        for group in content.groups.genders
    }


def absent(content: ReportContent) -> list[str]:
    """A line for every fold whose UAR counts classes without a test utterance."""
    return [
        f"{fold.name}: {', '.join(content.classes[i] for i in missing)}"
        for fold in content.folds
        if (missing := fold.outcome.scores.absent_classes)
    ]


def codebook_rows(folds: Iterable[FoldContent]) -> list[CodebookRow]:
    """A row per scale and group, averaged over ``folds``."""
    # The number is part of the key, because two scales may differ in their seed only.
    books: dict[tuple[int, int, str, int], list[CodebookContent]] = {}
    for fold in folds:
        for number, book in enumerate(fold.codebooks):
            books.setdefault((book.layer, book.k, book.group, number), []).append(book)
    rows = []
    for (layer, k, group, _), same in sorted(books.items()):
        emotion, gender = [book.emotion for book in same], [book.gender for book in same]
        speaker = [book.speaker for book in same]
        fits = [book.fit for book in same if book.fit is not None]
        rows.append(
            CodebookRow(
                layer=layer,
                k=k,
                group=group,
                used=float(np.mean([book.usage.used for book in same])),
                empty=float(np.mean([book.usage.empty for book in same])),
                perplexity=float(np.mean([book.usage.perplexity for book in same])),
                top_share=float(np.mean([book.usage.top_share for book in same])),
                emotion_purity=_mean(q.purity for q in _measured(emotion)),
                emotion_pnmi=_mean(q.pnmi for q in _measured(emotion)),
                gender_purity=_mean(q.purity for q in _measured(gender)),
                gender_pnmi=_mean(q.pnmi for q in _measured(gender)),
                speaker_purity=_mean(q.purity for q in _measured(speaker)),
                speaker_pnmi=_mean(q.pnmi for q in _measured(speaker)),
                tiny=float(np.mean([book.usage.tiny for book in same])),
                origin=", ".join(sorted({book.origin for book in same})),
                mean_squared_distance=_mean(fit.mean_squared_distance for fit in fits),
                iterations=_mean(float(fit.iterations) for fit in fits),
                relocated=_mean(float(fit.relocated) for fit in fits),
                stability=_mean(fit.stability for fit in fits if fit.stability is not None),
            )
        )
    return rows


def _measured(qualities: Sequence[ClusterQuality | None]) -> list[ClusterQuality]:
    return [quality for quality in qualities if quality is not None]


def _mean(values: Iterable[float]) -> float | None:
    present = list(values)
    return float(np.mean(present)) if present else None


def sections(content: ReportContent) -> dict[str, list[tuple[str, str]]]:
    """The configuration as (key, value) lines by section, in the order of the TOML file."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in ordered(content.configuration, tuple(RunConfig.model_fields)):
        found[name] = _lines("", content.configuration[name]) or [("", "(empty)")]
    return found


def _lines(key: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not key):
        prefix = f"{key}." if key else ""
        return [line for name in sorted(value) for line in _lines(f"{prefix}{name}", value[name])]
    return [(key, "none" if value is None else _as_toml(value))]


def _as_toml(value: object) -> str:
    """A value in a notation close to TOML, for display only."""
    if isinstance(value, Mapping):
        given = sorted((k, v) for k, v in value.items() if v is not None)
        return "{" + ", ".join(f"{k} = {_as_toml(v)}" for k, v in given) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_as_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """The names of ``order`` first, in that order, then the others sorted. JSON keeps no order."""
    present = set(names)
    return [n for n in order if n in present] + sorted(present - set(order))


def ordered_classes(content: ReportContent) -> list[str]:
    return ordered(content.corpus.per_class, content.classes)


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """``share`` of the true class, None if that has no utterance; ``shade`` is percent of the colour."""

    count: int
    share: float | None
    shade: float
    right: bool


def confusion_rows(content: ReportContent, darkest: float) -> list[list[ConfusionCell]]:
    """The pooled confusion matrix."""
    rows = []
    for i, counts in enumerate(content.pooled.outcome.confusion):
        total = sum(counts)
        shares = [count / total if total else None for count in counts]
        rows.append(
            [
                ConfusionCell(count, share, round(darkest * (share or 0.0), 1), i == j)
                for j, (count, share) in enumerate(zip(counts, shares, strict=True))
            ]
        )
    return rows
