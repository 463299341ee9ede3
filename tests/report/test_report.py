"""A realistic report: complete, self-contained, escaped, and the same bytes every time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from pydantic import ValidationError
from support.report_case import BOOTSTRAP, CLASSES, HOSTILE, MANY_CLASSES, build, record

from gmp_atl_dist.report.codebook_charts import usage_panels
from gmp_atl_dist.report.codebook_content import CentroidMap, CodebookContent
from gmp_atl_dist.report.confusion_png import confusion_png, drawn_names
from gmp_atl_dist.report.content import Outcome, PooledContent, ReportContent
from gmp_atl_dist.report.curves import stage_panels
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.html import render_html, render_json
from gmp_atl_dist.report.protocol import Protocol, ProtocolName

SECTIONS = [
    "verdict", "headline", "classes", "folds", "groups", "errors", "curves", "codebooks", "corpus",
    "audio", "configuration", "provenance", "downloads",
]  # fmt: skip


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return build()


@pytest.fixture(scope="module")
def page(content: ReportContent) -> str:
    return render_html(content)


class Page(HTMLParser):
    """Collects what a browser would fetch, what it would run, and what it would show."""

    VOID = frozenset({"meta", "img", "br"})
    URIS = ("data:image/png;base64,", "data:text/csv;", "data:application/x-tex;", "#")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name in {"src", "href", "srcset", "data", "action", "poster", "background"}:
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.shown += data.replace("\u00a0", " ")


def test_the_page_is_well_formed_and_has_every_section(page: str):
    parsed = Page(page)

    assert parsed.open == []
    assert parsed.ids == SECTIONS
    anchors = [link[1:] for link in parsed.links if link.startswith("#")]
    assert anchors == SECTIONS[1:]
    # Twenty errors; two examples with two scales each.
    assert parsed.tags.count("img") == 20 + 2 * 3


def test_the_page_loads_nothing_and_runs_nothing(page: str):
    parsed = Page(page)

    assert all(link.startswith(Page.URIS) for link in parsed.links)
    assert not {"script", "link", "iframe", "object", "embed", "base", "audio"} & set(parsed.tags)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_charts_have_ticks_and_names_on_both_axes(page: str):
    charts = [
        ElementTree.fromstring(svg) for svg in re.findall(r"<svg class=\"chart.*?</svg>", page)
    ]

    # Reliability and speakers; three trained stages; use and centroids of four codebooks.
    assert len(charts) == 2 + 2 + 6 + 2 + 4 + 4
    for svg in charts:
        for axis in ("x", "y"):
            ticks = [t.text for t in svg.iter("text") if t.get("class") == f"{axis} tick"]
            names = [t.text for t in svg.iter("text") if t.get("class") == f"{axis} name"]
            assert len(ticks) >= 2, svg.get("aria-label")
            assert len(set(ticks)) == len(ticks)
            assert len(names) == 1
            assert names[0]


def test_quantities_have_names_for_people(page: str):
    for name in ("accuracy: layer 6, k = 50", "accuracy: layer 9, k = 512", "learning rate",
                 "accuracy with margin", "most frequent label", "most frequent gender"):  # fmt: skip
        assert name in page
    assert "accuracy_scale" not in Page(page).shown


def test_names_from_outside_are_escaped(page: str):
    assert "<script" not in page
    assert HOSTILE in Page(page).shown
    assert "<b>" not in render_html(build(num_folds=1), record())


def test_the_page_shows_the_numbers(content: ReportContent, page: str):
    shown = Page(page).shown
    outcome = content.pooled.outcome

    assert outcome.speaker_intervals is not None
    for value in (
        outcome.scores.war,
        outcome.scores.uar,
        outcome.intervals.uar[0],
        outcome.speaker_intervals.uar[1],
        content.folds[3].outcome.scores.uar,
        *outcome.scores.recalls,
    ):
        assert f"{100 * value:.1f}" in shown
    assert "25.0 %" in shown
    assert "95 % interval" in shown
    assert content.artefacts["ingest"] in shown
    for fold in content.folds:
        assert fold.artefacts["retrain"][:12] in shown
        assert fold.artefacts["retrain"] in page
    assert "{}" in shown  # corpus.merge; an empty table is a value as well
    assert "[{k = 50, layer = 6}, {k = 50, layer = 9}, {k = 50, layer = 12}]" in shown
    assert "protocol: clean" in shown
    assert "Warning" not in shown


@pytest.mark.parametrize("protocol", ["transductive", "peek"])
def test_other_protocols_warn_loudly(protocol: ProtocolName):
    page = render_html(build(protocol, num_folds=1))

    assert f"Warning: {protocol} protocol." in Page(page).shown
    assert 'role="alert"' in page


def test_the_same_content_gives_the_same_bytes(content: ReportContent, page: str):
    assert render_html(build()) == page
    assert render_json(build()) == render_json(content)


def test_json_is_canonical_and_holds_the_whole_page(content: ReportContent, page: str):
    data = render_json(content)
    again = ReportContent.model_validate_json(data)

    assert again == content
    assert render_json(again) == data
    assert render_html(again) == page
    assert (
        data.decode("ascii")
        == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")) + "\n"
    )


def test_the_png_leaves_matplotlib_as_it_was_and_ignores_the_users_style(content: ReportContent):
    confusion = content.pooled.outcome.confusion
    before = dict(mpl.rcParams)
    usual = confusion_png(confusion, CLASSES)
    assert dict(mpl.rcParams) == before

    with mpl.rc_context({"font.size": 20, "figure.facecolor": "black"}):
        assert confusion_png(confusion, CLASSES) == usual


def test_the_png_numbers_classes_whose_script_its_font_lacks():
    assert drawn_names(MANY_CLASSES[:4]) == ["class 1", "class 2", "class 3", "неутрально"]
    assert drawn_names(["$\\frac{x", "a" * 30])[1] == "a" * 17 + "…"


def test_many_folds_single_points_and_odd_names_can_be_drawn(content: ReportContent):
    names = [f"speaker $\\frac{{{i} <b>" for i in range(24)]
    folds = tuple(content.folds[0].model_copy(update={"name": name}) for name in names)
    many = content.model_copy(update={"folds": folds})
    lines = {
        "100 %_of $x": {names[0]: ((5, 0.0),)},
        "loss": dict.fromkeys(names, ((0, 1.0), (1, 0.5))),
        "empty": {names[1]: ()},
    }
    book = CodebookContent.of(3, [7, 0, 0], group="female")

    panels = stage_panels("new", lines, many)
    panels += usage_panels(dict.fromkeys(names, (book,)) | {"without": ()})

    assert len(panels) == 4
    for panel in panels:
        assert ElementTree.fromstring(panel.chart).tag == "svg"
    assert 'class="many' not in panels[0].chart


def test_few_speakers_have_no_speaker_interval(content: ReportContent):
    assert all(fold.outcome.speaker_intervals is None for fold in content.folds)
    assert content.pooled.outcome.speaker_intervals is not None


def test_a_report_without_curves_and_codebooks_leaves_their_sections_out(content: ReportContent):
    nothing = {"curves": {}, "codebooks": (), "timelines": ()}
    bare = tuple(f.model_copy(update=nothing) for f in content.folds)

    parsed = Page(render_html(content.model_copy(update={"folds": bare})))

    assert not {"curves", "codebooks"} & set(parsed.ids)
    assert not {"#curves", "#codebooks"} & set(parsed.links)


def test_an_absent_class_is_named():
    outcome = Outcome.of([0, 1, 1], [0, 1, 0], 3, speakers=["a", "a", "b"], **BOOTSTRAP)
    whole = build(num_folds=1)
    fold = whole.folds[0].model_copy(update={"outcome": outcome, "num_test": 3, "name": "only"})
    data = whole.model_dump() | {
        "classes": ("x", "y", "z"),
        "folds": [fold.model_dump()],
        "pooled": PooledContent.of(outcome, [outcome], "xyz").model_dump(),
        "groups": GroupsContent().model_dump(),
        "predictions": {},
        "calibration": None,
    }

    page = render_html(ReportContent.model_validate(data))

    assert "only: z" in Page(page).shown


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        at: Any = data
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            at = at[step]
        at[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("extra", 1), "extra"),
        (_set("pooled.outcome.scores.extra", 1), "extra"),
        (_set("environment", {"AWS_SECRET_ACCESS_KEY": "x"}), "environment"),
        (_set("corpus.hours", float("nan")), "finite"),
        (_set("pooled.outcome.scores.uar", 0.99), "not those of the confusion matrix"),
        (_set("pooled.outcome.confusion.0.0", 7), "not those of the confusion matrix"),
        (_set("pooled.war.mean", 0.99), "not the averages of the folds"),
        (_set("pooled.verdict.level", "none"), "the verdict on these scores is"),
        (_set("groups.speakers.0.uar", 0.99), "its confusion matrix gives"),
        (_set("groups.genders.0", None), "groups"),
        (_set("predictions.true.0", 9), "predictions: row indices [9]"),
        (_set("predictions.predicted", [0] * 5531), "not those of the pooled"),
        (_set("predictions.speakers", []), "columns of different lengths"),
        (_set("errors.0.spectrogram.frames", 7), "are not 40 x 7 bytes"),
        (_set("folds.0.num_test", 3), "every one needs a prediction"),
        (_set("folds.1.name", "1"), "share a name"),
        (_set("folds.0.selection.rule", "test"), "go together"),
        (_set("folds.0.codebooks.0.k", 51), "do not match"),
        (_set("classes", ["angry", "happy"]), "for the 2 classes"),
        (_set("protocol.name", "peek"), "all protocols except clean need a warning"),
    ],
)
def test_a_report_cannot_contradict_itself(
    content: ReportContent, change: Callable[[dict[str, Any]], None], says: str
):
    data = json.loads(render_json(content))
    change(data)

    with pytest.raises(ValidationError, match=re.escape(says)):
        ReportContent.model_validate(data)


def test_an_epoch_chosen_on_test_speakers_is_never_called_clean():
    with pytest.raises(ValueError, match="go together"):
        Protocol.of("clean", "test")


def test_a_codebook_is_told_with_its_fit(content: ReportContent, page: str) -> None:
    shown = Page(page).shown
    for figure in ("321.25", "783.25", "0.625", "Speaker", "Tiny", "fitted"):
        assert figure in shown


def test_an_imported_codebook_has_no_fit_and_says_whence() -> None:
    content = build(num_folds=1)
    (fold,) = content.folds
    book = fold.codebooks[0].model_copy(
        update={"fit": None, "map": None, "origin": "imported from km.bin"}
    )
    only = content.model_copy(update={"folds": (fold.model_copy(update={"codebooks": (book,)}),)})
    parsed = Page(render_html(only))
    assert "imported from km.bin" in parsed.shown
    # Without a map there is no picture of centroids.
    assert "Centroids of" not in parsed.shown


def test_maps_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValidationError, match="the map has 1 centroids, but k = 2"):
        CodebookContent.of(
            9, [1, 1], map=CentroidMap(points=((0.0, 0.0),), emotions=(0,), genders=(0,))
        )


def test_the_page_of_a_run_has_its_name_machine_and_durations(content: ReportContent, page: str):
    run = record()
    parsed = Page(render_html(content, run, clips={HOSTILE: b"fLaC"}))

    assert f"GMP-ATL on {run.corpus_name}" in parsed.shown
    for words in (
        run.name, "node<7>", "16", "64.0 GiB", "1 h 02 min", "3.0 GiB", "SIGTERM", "0123abc+",
        "done before", "my corpus.toml", "fold 1, fold 2",
    ):  # fmt: skip
        assert words in parsed.shown, words
    assert "data:audio/flac;base64,ZkxhQw==" in parsed.links
    assert "run" in parsed.ids
    # The sealed page has none of it.
    assert "run" not in Page(page).ids
    assert "node" not in Page(page).shown


def test_groups_are_scored_like_their_predictions():
    groups = GroupsContent.of(
        [0, 0, 1, 1, 0], [0, 1, 1, 1, 0], ["a", "a", "a", "b", "b"],
        ["female"] * 3 + ["male"] * 2, 3, **BOOTSTRAP,
    )  # fmt: skip
    a, b = groups.speakers

    assert (a.name, a.gender, a.count, a.uar, a.recalls) == (
        "a",
        "female",
        3,
        0.75,
        (0.5, 1.0, None),
    )
    assert (b.name, b.count, b.uar, b.war) == ("b", 2, 1.0, 1.0)
    assert [g.name for g in groups.genders] == ["female", "male"]
    assert groups.genders[0].intervals is None  # no utterance of the third class


def test_the_audio_audit_names_what_is_beyond_its_limits(content: ReportContent, page: str):
    assert content.audio is not None
    shown = " ".join(Page(page).shown.split())
    assert "no sound above 4200 Hz, as in audio of 8 kHz" in shown
    assert f"{HOSTILE} (3900)" in shown
    assert "16000 Hz (99), 8000 Hz (1)" in shown
    assert "1 recording occurs more than once" in shown
    assert {f.code for f in content.audio.findings} == {"quiet", "level", "narrow_band"}
    without = content.model_copy(update={"audio": None})
    assert 'id="audio"' not in render_html(without)
    assert render_json(without) != render_json(content)
