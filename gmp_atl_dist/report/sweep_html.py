"""Renders a sweep as JSON, and as one HTML page that includes all figures.

Like the page of a run, it loads no other resource and runs no script. Links lead to the pages of single
cells, if those lie in the same store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup

from gmp_atl_dist.config import canonical_json
from gmp_atl_dist.report import palette
from gmp_atl_dist.report.charts import DASHES
from gmp_atl_dist.report.html import MAX_CONFUSION_SHADE, environment
from gmp_atl_dist.report.images import data_uri
from gmp_atl_dist.report.pictures import TimePicture
from gmp_atl_dist.report.sweep_content import SweepArm, SweepContent
from gmp_atl_dist.report.sweep_curves import line_style, seeds_of, stage_charts
from gmp_atl_dist.report.sweep_downloads import table_downloads
from gmp_atl_dist.report.sweep_strips import (
    difference_strips,
    legend_symbol,
    part_strips,
    score_strips,
)
from gmp_atl_dist.report.sweep_tables import tables_of
from gmp_atl_dist.store.filesystem import Store

PAGE_NAME = "sweep.html"
JSON_NAME = "sweep_report.json"
_MAX_LINEAGE = 300
_MAX_SPEAKERS = 60


class _Cell(NamedTuple):
    """A cell of a confusion matrix: mean number, share of the true class, and shade in percent."""

    number: float
    share: float | None
    shade: float
    right: bool


def render_sweep_json(content: SweepContent) -> bytes:
    """Canonical JSON: sorted keys, ASCII, the same bytes for the same content."""
    return canonical_json(content.model_dump(mode="json")).encode("ascii") + b"\n"


def render_sweep_html(content: SweepContent, *, clips: Mapping[str, bytes] | None = None) -> str:
    """A self-contained page. The same content gives the same text, also after a round trip via JSON.

    Args:
        clips: FLAC by utterance id, for the errors that are shown. Off unless the licence allows it.
    """
    tables = tables_of(content)
    shown = content.test_set is not None
    scored = [(number, arm) for number, arm in enumerate(content.arms) if arm.figures]
    speakers = part_strips(content, "speaker") if shown else None
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            content=content,
            tables=tables,
            light=Markup(palette.css_variables(palette.LIGHT)),
            dark=Markup(palette.css_variables(palette.DARK)),
            colour_classes=Markup(palette.css_classes()),
            conf=f"{100 * content.test_set.confidence:g} %" if content.test_set else "",
            uar=score_strips(content, "uar") if shown else None,
            differences=difference_strips(content, "uar") if content.compared else None,
            speakers=speakers.rows[:_MAX_SPEAKERS] if speakers else (),
            num_speakers=len(speakers.rows) if speakers else 0,
            speaker_axis=speakers.axis if speakers else "",
            genders=part_strips(content, "gender") if "genders" in tables else None,
            arm_legend=[(arm.name, legend_symbol(number)) for number, arm in scored],
            confusions=[(arm, _confusion(arm)) for arm in content.arms if arm.confusion],
            curves=_curves(content),
            seed_legend=[
                (seed, *line_style(seed, seeds_of(content.curves), False))
                for seed in seeds_of(content.curves)
            ],
            dashes=DASHES,
            errors=[
                (error, TimePicture.of(error.spectrogram, error.scales)) for error in content.errors
            ],
            clips={name: data_uri("audio/flac", data) for name, data in (clips or {}).items()},
            sharing=_sharing(content),
            max_lineage=_MAX_LINEAGE,
            downloads=table_downloads(tables.values()),
        )
    )


def write_sweep_page(
    store: Store,
    folder: str,
    content: SweepContent,
    *,
    clips: Mapping[str, bytes] | None = None,
) -> None:
    """Write ``sweep_report.json`` and ``sweep.html`` below ``folder``; each is replaced as a whole."""
    page = render_sweep_html(content, clips=clips).encode()
    store.put(f"{folder}/{JSON_NAME}", render_sweep_json(content))
    store.put(f"{folder}/{PAGE_NAME}", page)


def _confusion(arm: SweepArm) -> list[list[_Cell]]:
    rows = []
    for i, counts in enumerate(arm.confusion):
        total = sum(counts)
        shares = [count / total if total else None for count in counts]
        rows.append(
            [
                _Cell(count, share, round(MAX_CONFUSION_SHADE * (share or 0.0), 1), i == j)
                for j, (count, share) in enumerate(zip(counts, shares, strict=True))
            ]
        )
    return rows


def _curves(content: SweepContent) -> dict[str, list[tuple[str, Markup, str]]]:
    """Stage -> (arm, chart, what it shows)."""
    seeds = seeds_of(content.curves)
    found: dict[str, list[tuple[str, Markup, str]]] = {}
    for stage in dict.fromkeys(curve.stage for curve in content.curves):
        of_stage = [curve for curve in content.curves if curve.stage == stage]
        found[stage] = [
            (curve.arm, chart, curve.title)
            for curve, chart in zip(of_stage, stage_charts(of_stage, seeds), strict=True)
        ]
    return found


def _sharing(content: SweepContent) -> list[tuple[str, int, int]]:
    """(stage, cells that use it, artefacts): what several cells share was computed once."""
    used: dict[str, list[str]] = {}
    for arm in content.arms:
        for cell in arm.cells:
            for kind, fingerprint in cell.artefacts.items():
                used.setdefault(kind, []).append(fingerprint)
    order = [*(s for s in content.stages if s in used), *sorted(used.keys() - {*content.stages})]
    return [(kind, len(used[kind]), len(set(used[kind]))) for kind in order]
