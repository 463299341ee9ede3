"""Renders the report as JSON, and as one HTML page that includes all figures.

The page loads no other resource and runs no script; its content policy enforces that. Names of
recordings and reasons for dropping them are external input, so everything is escaped.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
import numpy as np

from gmp_atl_dist.config import RunConfig, canonical_json
from gmp_atl_dist.metrics import Bounds, ClusterQuality, Spread
from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.report import codebook_figures, figures
from gmp_atl_dist.report.codebook_content import (
    CodebookContent,
)
from gmp_atl_dist.report.content import (
    ReportContent,
)

_MAX_NAMES = 8
_MAX_DROPPED = 200
_NOTHING = "–"  # noqa: RUF001 - an en dash fills empty cells


def render_json(content: ReportContent) -> bytes:
    """Canonical JSON: sorted keys, ASCII, the same bytes for the same content."""
    return canonical_json(content.model_dump(mode="json")).encode("ascii") + b"\n"


def render_html(content: ReportContent) -> str:
    """A self-contained page. The same content gives the same text, also after a round trip via JSON."""
    stages = content.curves_by_stage
    support = content.pooled.outcome.scores.support
    return _template().render(
        content=content,
        pooled=content.pooled,
        scores=content.pooled.outcome.scores,
        chance=1 / len(content.classes),
        majority=max(support) / sum(support),
        majority_class=content.classes[support.index(max(support))],
        class_rows=_class_rows(content),
        absent=_absent(content),
        codebook_rows=_codebook_rows(content),
        confusion_picture=_data_uri(
            figures.confusion_svg(content.pooled.outcome.confusion, content.classes)
        ),
        curve_pictures={
            stage: _data_uri(figures.curves_svg(stages[stage]))
            for stage in _ordered(stages, content.stages)
        },
        codebook_picture=_codebook_picture(content),
        centroid_picture=_centroid_picture(content),
        timeline_picture=_timeline_picture(content),
        drawn_fold=_drawn_fold(content),
        per_class={c: content.corpus.per_class[c] for c in _ordered_classes(content)},
        sections=_sections(content),
        artefact_kinds=_ordered(
            {kind for fold in content.folds for kind in fold.artefacts}, content.stages
        ),
        shared_artefacts={
            k: content.artefacts[k] for k in _ordered(content.artefacts, content.stages)
        },
        shown_dropped=content.corpus.dropped[:_MAX_DROPPED],
    )


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


def _class_rows(content: ReportContent) -> list[ClassRow]:
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


def _absent(content: ReportContent) -> list[str]:
    """A line for every fold whose UAR counts classes without a test utterance."""
    return [
        f"{fold.name}: {', '.join(content.classes[i] for i in missing)}"
        for fold in content.folds
        if (missing := fold.outcome.scores.absent_classes)
    ]


def _codebook_rows(content: ReportContent) -> list[CodebookRow]:
    # The number is part of the key, because two scales may differ in their seed only.
    books: dict[tuple[int, int, str, int], list[CodebookContent]] = {}
    for fold in content.folds:
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


def _codebook_picture(content: ReportContent) -> str | None:
    books = {fold.name: fold.codebooks for fold in content.folds if fold.codebooks}
    return _data_uri(figures.codebooks_svg(books)) if books else None


def _drawn_fold(content: ReportContent) -> str:
    """The fold whose centroids and examples are drawn. One is enough, because all look alike."""
    return next((fold.name for fold in content.folds if fold.codebooks), "")


def _centroid_picture(content: ReportContent) -> str | None:
    books = next((fold.codebooks for fold in content.folds if fold.codebooks), ())
    picture = codebook_figures.centroids_svg(books, content.classes, GENDERS)
    return _data_uri(picture) if picture else None


def _timeline_picture(content: ReportContent) -> str | None:
    examples = next((fold.timelines for fold in content.folds if fold.timelines), ())
    return _data_uri(codebook_figures.timelines_svg(examples)) if examples else None


def _sections(content: ReportContent) -> dict[str, list[tuple[str, str]]]:
    """The configuration as (key, value) lines by section, in the order of the TOML file."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for name in _ordered(content.configuration, tuple(RunConfig.model_fields)):
        sections[name] = _lines("", content.configuration[name]) or [("", "(empty)")]
    return sections


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


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """The names of ``order`` first, in that order, then the others sorted. JSON keeps no order."""
    present = set(names)
    return [n for n in order if n in present] + sorted(present - set(order))


def _ordered_classes(content: ReportContent) -> list[str]:
    return _ordered(content.corpus.per_class, content.classes)


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"


def _percent(value: float | None) -> str:
    return _NOTHING if value is None else f"{100 * value:.1f} %"


def _bounds(bounds: Bounds) -> str:
    return f"{100 * bounds[0]:.1f} {_NOTHING} {100 * bounds[1]:.1f} %"


def _spread(spread: Spread) -> str:
    """The mean in percent, with the standard deviation if there are several folds."""
    if spread.std is None:
        return _percent(spread.mean)
    return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f} %"


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown or "none"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "bounds": _bounds,
        "spread": _spread,
        "names": _names,
        "count": "{:,}".format,
        "decimal": lambda value: _NOTHING if value is None else f"{value:.3f}",
        "tenth": lambda value: _NOTHING if value is None else f"{value:.1f}",
        "figure": lambda value: _NOTHING if value is None else f"{value:.5g}",
    }
    source = resources.files("gmp_atl_dist.report").joinpath("template.html.j2")
    return environment.from_string(source.read_text(encoding="utf-8"))
