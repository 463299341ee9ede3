"""Renders the report as JSON, and as one HTML page that includes all figures.

The page loads no other resource and runs no script; its content policy enforces that. Names of
recordings and reasons for dropping them are external input, so everything is escaped. Each section is a
template in ``page/``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

import jinja2
from markupsafe import Markup

from gmp_atl_dist.config import canonical_json
from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.report import palette, rows
from gmp_atl_dist.report.charts import DASHES
from gmp_atl_dist.report.codebook_charts import map_panels, shape_svg, usage_panels
from gmp_atl_dist.report.content import SURE_FROM, ReportContent
from gmp_atl_dist.report.curves import line_style, stage_panels
from gmp_atl_dist.report.downloads import downloads_of
from gmp_atl_dist.report.formats import FILTERS
from gmp_atl_dist.report.images import data_uri
from gmp_atl_dist.report.pictures import TimePicture
from gmp_atl_dist.report.run_facts import RunFacts
from gmp_atl_dist.report.score_charts import (
    MOST_SPEAKERS,
    kinds_of,
    reliability_panel,
    speakers_panel,
)
from gmp_atl_dist.statistics import wording
from gmp_atl_dist.statistics.bootstrap import Resampling
from gmp_atl_dist.store.runs import RunRecord

_MAX_DROPPED = 200
MAX_CONFUSION_SHADE = 55
"""Percent of the colour in the darkest cell, so that text can be read on each of them."""
_HEADLINES = {
    "clear": "Clearly better than chance.",
    "weak": "Better than chance, with reservations.",
    "none": "Not better than chance.",
}


def render_json(content: ReportContent) -> bytes:
    """Canonical JSON: sorted keys, ASCII, the same bytes for the same content."""
    return canonical_json(content.model_dump(mode="json")).encode("ascii") + b"\n"


def render_html(
    content: ReportContent,
    record: RunRecord | None = None,
    *,
    clips: Mapping[str, bytes] | None = None,
) -> str:
    """A self-contained page. The same content gives the same text, also after a round trip via JSON.

    Args:
        record: the run, for its name, corpus, machine, durations and memory. The sealed page has none.
        clips: FLAC by utterance id, for the errors that are shown.
    """
    shown = {
        **_scores(content),
        **_errors(content, clips or {}),
        **_training(content),
        **_codebooks(content),
        **_provenance(content),
    }
    title = f"GMP-ATL on {record.corpus_name}" if record else content.title
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            content=content,
            run=RunFacts.of(record) if record else None,
            title=title,
            light=Markup(palette.css_variables(palette.LIGHT)),
            dark=Markup(palette.css_variables(palette.DARK)),
            colour_classes=Markup(palette.css_classes()),
            downloads=downloads_of(content, title),
            **shown,
        )
    )


def _scores(content: ReportContent) -> dict[str, object]:
    outcome = content.pooled.outcome
    support = outcome.scores.support
    by_speaker = outcome.speaker_intervals is not None
    drawn = outcome.speaker_intervals or outcome.intervals
    how = Resampling(drawn.samples, drawn.confidence)
    speakers = {name for fold in content.folds for name in fold.test_speakers}
    picture = speakers_panel(content.groups.speakers, outcome.scores.war)
    return {
        "interval_words": wording.intervals(len(speakers), how, by_speaker=by_speaker),
        "not_covered": wording.NOT_COVERED,
        "reliability": reliability_panel(content.calibration) if content.calibration else None,
        "speaker_picture": picture,
        "speaker_kinds": kinds_of(content.groups.speakers),
        "pooled": content.pooled,
        "calibration": content.calibration,
        "verdict": content.pooled.verdict,
        "verdict_headline": _HEADLINES[content.pooled.verdict.level],
        "scores": outcome.scores,
        "chance": 1 / len(content.classes),
        "majority": max(support) / sum(support),
        "majority_class": content.classes[support.index(max(support))],
        "class_rows": rows.class_rows(content),
        "absent": rows.absent(content),
        "confusion": rows.confusion_rows(content, MAX_CONFUSION_SHADE),
        "shown_speakers": content.groups.speakers[:MOST_SPEAKERS],
        "gender_facts": rows.gender_facts(content),
    }


def _errors(content: ReportContent, clips: Mapping[str, bytes]) -> dict[str, object]:
    return {
        "errors": [
            (error, TimePicture.of(error.spectrogram, error.scales)) for error in content.errors
        ],
        "clips": {name: data_uri("audio/flac", data) for name, data in clips.items()},
        "errors_have_labels": any(error.scales for error in content.errors),
    }


def _training(content: ReportContent) -> dict[str, object]:
    stages = content.curves_by_stage
    folds = [fold.name for fold in content.folds]
    return {
        "curves": {
            stage: stage_panels(stage, stages[stage], content)
            for stage in rows.ordered(stages, content.stages)
        },
        "fold_legend": [(fold, *line_style(fold, folds)) for fold in folds],
        "dashes": DASHES,
    }


def _codebooks(content: ReportContent) -> dict[str, object]:
    with_books = [fold for fold in content.folds if fold.codebooks]
    # One fold is enough for maps and examples, because all look alike.
    drawn = with_books[0] if with_books else None
    return {
        "codebook_rows": rows.codebook_rows(content.folds),
        "usage": usage_panels({f.name: f.codebooks for f in with_books}),
        "maps": map_panels(drawn.codebooks) if drawn else [],
        "timelines": [
            (example, TimePicture.of(example.spectrogram, example.scales))
            for example in (drawn.timelines if drawn else ())
        ],
        "drawn_fold": drawn.name if drawn else "",
        "gender_symbols": [(name, shape_svg(i)) for i, name in enumerate(GENDERS)],
        "palette_size": palette.SIZE,
    }


def _provenance(content: ReportContent) -> dict[str, object]:
    kinds = {kind for fold in content.folds for kind in fold.artefacts}
    return {
        "per_class": {c: content.corpus.per_class[c] for c in rows.ordered_classes(content)},
        "sections": rows.sections(content),
        "artefact_kinds": rows.ordered(kinds, content.stages),
        "shared_artefacts": {
            k: content.artefacts[k] for k in rows.ordered(content.artefacts, content.stages)
        },
        "gender_rows": [(f.name, row) for f in content.folds for row in f.predicted_genders],
        "sure_from": SURE_FROM,
        "shown_dropped": content.corpus.dropped[:_MAX_DROPPED],
    }


@functools.cache
def environment() -> jinja2.Environment:
    """Templates of ``page/``, with the filters of the pages."""
    folder = resources.files("gmp_atl_dist.report") / "page"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment
