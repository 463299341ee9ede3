"""A realistic report: complete, self-contained, escaped, and the same bytes every time."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from pydantic import ValidationError

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.metrics import cluster_quality_from_joint, joint_counts
from gmp_atl_dist.report import figures
from gmp_atl_dist.report.codebook_content import (
    CentroidMap,
    CodebookContent,
    FitContent,
    TimelineContent,
    TimelineScale,
)
from gmp_atl_dist.report.content import (
    CorpusContent,
    DroppedItem,
    FoldContent,
    Outcome,
    PooledContent,
    ReportContent,
    Selection,
)
from gmp_atl_dist.report.html import render_html, render_json
from gmp_atl_dist.report.protocol import Protocol, ProtocolName

CLASSES = ("angry", "happy", "neutral", "sad")
TEST_SIZES = (1085, 1023, 1151, 1031, 1241)
HOSTILE = "Ses01/<script>alert('x')</script>&\"quoted\".wav"
BOOTSTRAP: dict[str, Any] = {"samples": 200, "confidence": 0.95, "seed": 0}
SVG = "{http://www.w3.org/2000/svg}"


def codebooks(rng: np.random.Generator) -> tuple[CodebookContent, ...]:
    books = []
    for layer, k in ((6, 50), (9, 50), (12, 50), (9, 512)):
        share = rng.dirichlet(np.full(k, 0.6))
        labels = rng.choice(k, size=20_000, p=share)
        truth = (labels + rng.integers(0, 3, labels.size)) % 4
        books.append(
            CodebookContent.of(
                layer,
                np.bincount(labels, minlength=k).tolist(),
                emotion=cluster_quality_from_joint(joint_counts(truth, labels, 4, k)),
                gender=cluster_quality_from_joint(joint_counts(truth % 2, labels, 2, k)),
                speaker=cluster_quality_from_joint(joint_counts(truth % 3, labels, 3, k)),
                fit=FitContent(
                    seed=0,
                    frames=20_000,
                    mean_squared_distance=271.25 + k,
                    iterations=9,
                    relocated=1,
                    stability=0.625,
                ),
                map=CentroidMap(
                    points=tuple(map(tuple, rng.normal(size=(k, 2)).round(4).tolist())),  # pyright: ignore
                    emotions=(None, *rng.integers(4, size=k - 1).tolist()),
                    genders=(None, *rng.integers(2, size=k - 1).tolist()),
                ),
            )
        )
    return tuple(books)


def timelines(rng: np.random.Generator) -> tuple[TimelineContent, ...]:
    return tuple(
        TimelineContent(
            utterance_id=HOSTILE,
            emotion=emotion,
            gender="female",
            scales=tuple(
                TimelineScale(layer=9, k=k, labels=tuple(rng.integers(k, size=120).tolist()))
                for k in (50, 512)
            ),
        )
        for emotion in CLASSES[:2]
    )


def curves(rng: np.random.Generator) -> dict[str, dict[str, tuple[tuple[int, float], ...]]]:
    def falling(start: float, stop: float, steps: int, every: int) -> tuple[tuple[int, float], ...]:
        at = np.arange(0, steps, every)
        values = stop + (start - stop) * np.exp(-4 * at / steps) + rng.normal(0, 0.03, at.size)
        return tuple(zip(at.tolist(), values.tolist(), strict=True))

    return {
        "warmup": {
            "loss": falling(1.4, 0.3, 700, 10),
            "gender_accuracy": falling(0.5, 0.98, 700, 70),
        },
        "retrain": {
            "loss": falling(6.2, 2.1, 20_000, 10),
            "masked_accuracy": falling(0.02, 0.55, 20_000, 200),
            "lr": ((0, 1e-7), (2000, 1e-4), (20_000, 1e-7)),
            "grad_norm": falling(9.0, 1.2, 20_000, 100),
        },
        "finetune": {
            "loss": falling(9.0, 0.6, 2800, 10),
            "train_uar": falling(0.25, 0.93, 2800, 70),
        },
    }


def build(protocol: ProtocolName = "clean", num_folds: int = 5) -> ReportContent:
    """A report like IEMOCAP's, from seeded noise."""
    rng = np.random.default_rng(11)
    folds: list[FoldContent] = []
    everyone: list[tuple[np.ndarray, np.ndarray, list[str]]] = []
    rule = "test" if protocol == "peek" else "last"
    speakers = [f"Ses{s:02d}{g}" for s in range(1, num_folds + 1) for g in "FM"]
    for i in range(num_folds):
        size = TEST_SIZES[i % len(TEST_SIZES)]
        true = rng.choice(4, size=size, p=[0.2, 0.3, 0.3, 0.2])
        predicted = np.where(rng.random(size) < 0.72, true, rng.integers(0, 4, size))
        mine = speakers[2 * i : 2 * i + 2]
        said_by = rng.choice(mine, size=size).tolist()
        everyone.append((true, predicted, said_by))
        folds.append(
            FoldContent(
                name=str(i + 1),
                train_speakers=tuple(s for s in speakers if s not in mine),
                test_speakers=tuple(mine),
                num_train=sum(TEST_SIZES) - size,
                num_test=size,
                outcome=Outcome.of(true, predicted, 4, speakers=said_by, **BOOTSTRAP),
                selection=Selection(rule=rule, epoch=40, num_epochs=40, measure="uar", value=0.81),
                curves=curves(rng),
                codebooks=codebooks(rng),
                timelines=timelines(rng),
                artefacts={
                    kind: rng.bytes(32).hex()
                    for kind in ("finetune", "warmup", "extract", "cluster", "label", "retrain")
                },
            )
        )
    pooled = Outcome.of(
        np.concatenate([true for true, _, _ in everyone]),
        np.concatenate([predicted for _, predicted, _ in everyone]),
        4,
        speakers=[speaker for *_, said_by in everyone for speaker in said_by],
        **BOOTSTRAP,
    )
    return ReportContent(
        title="GMP-ATL on IEMOCAP, 4 classes & 5 folds",
        protocol=Protocol.of(protocol, rule),
        classes=CLASSES,
        folds=tuple(folds),
        pooled=PooledContent.of(pooled, [fold.outcome for fold in folds]),
        corpus=CorpusContent(
            adapter="iemocap",
            num_utterances=5531,
            hours=6.98,
            num_speakers=10,
            per_class={"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084},
            per_gender={"female": 2623, "male": 2908},
            dropped=(
                DroppedItem(item=HOSTILE, reason="0.03 s is shorter than corpus.min_s = 0.1"),
                DroppedItem(item="Ses02/b.wav", reason="not decodable: https://example.org/x"),
            ),
        ),
        configuration=RunConfig().science(),
        seeds={"warmup": 0, "cluster": 0, "retrain": 0, "finetune": 0, "evaluate": 0},
        versions={"gmp_atl_dist": "0.1.0", "torch": "2.9.0", "ray": "2.52.0", "numpy": "2.4.6"},
        artefacts={"ingest": rng.bytes(32).hex(), "model": rng.bytes(32).hex()},
    )


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return build()


@pytest.fixture(scope="module")
def page(content: ReportContent) -> str:
    return render_html(content)


class Page(HTMLParser):
    """Collects what a browser would fetch, what it would run, and what it would show."""

    VOID = frozenset({"meta", "img", "br"})

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
            self.shown += data


def images(page: str) -> list[ElementTree.Element]:
    uris = [link for link in Page(page).links if link.startswith("data:image/svg+xml;base64,")]
    return [ElementTree.fromstring(base64.b64decode(uri.partition(",")[2])) for uri in uris]


def test_the_page_is_well_formed_and_has_every_section(page: str):
    parsed = Page(page)

    assert parsed.open == []
    assert parsed.ids == [
        "headline", "classes", "folds", "curves", "codebooks", "corpus", "configuration",
        "provenance",
    ]  # fmt: skip
    # Confusion, three trained stages; use, centroids and timelines of codebooks.
    assert parsed.tags.count("img") == 1 + 3 + 3


def test_the_page_loads_nothing_and_runs_nothing(page: str):
    parsed = Page(page)

    assert all(link.startswith("data:image/svg+xml;base64,") for link in parsed.links)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_pictures_decode_and_load_nothing(page: str):
    for svg in images(page):
        assert svg.tag == f"{SVG}svg"
        assert len(list(svg.iter(f"{SVG}path"))) > 10
        assert not list(svg.iter(f"{SVG}script"))
        assert not list(svg.iter(f"{SVG}text"))
        for element in svg.iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:")), value


def test_names_from_outside_are_escaped(page: str):
    assert "<script" not in page
    assert HOSTILE in Page(page).shown


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


def test_the_last_bits_of_the_layout_change_no_byte(
    content: ReportContent, page: str, monkeypatch: pytest.MonkeyPatch
):
    """They are not always the same: the solver goes by addresses in memory."""
    execute, moved = ConstrainedLayoutEngine.execute, []

    def a_little_off(self: ConstrainedLayoutEngine, figure: Figure) -> None:
        execute(self, figure)
        for number, axes in enumerate(figure.axes):
            x, y, width, height = axes.get_position(original=True).bounds
            # Not set_position, which would take the axes out of the layout.
            axes._set_position((x, y * (1 + 1e-13 * number), width * (1 + 1e-13), height))  # pyright: ignore[reportAttributeAccessIssue]
            moved.append(axes)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", a_little_off)
    assert render_html(content) == page
    assert moved


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


def test_pictures_leave_matplotlib_as_it_was(content: ReportContent):
    before = dict(mpl.rcParams)

    figures.confusion_svg(content.pooled.outcome.confusion, CLASSES)

    assert dict(mpl.rcParams) == before


def test_pictures_do_not_follow_the_users_matplotlib_style(content: ReportContent):
    usual = figures.confusion_svg(content.pooled.outcome.confusion, CLASSES)

    with mpl.rc_context({"font.size": 20, "figure.facecolor": "black"}):
        assert figures.confusion_svg(content.pooled.outcome.confusion, CLASSES) == usual


def test_many_folds_single_points_and_odd_names_can_be_drawn():
    names = [f"speaker $\\frac{{{i}" for i in range(24)]

    many = figures.curves_svg({"loss": dict.fromkeys(names, ((0, 1.0), (1, 0.5)))})
    point = figures.curves_svg({"100 %_of $x": {"1": ((5, 0.0),)}, "empty": {"1": ()}})
    book = CodebookContent.of(3, [7, 0, 0], group="female")
    use = figures.codebooks_svg(dict.fromkeys(names, (book,)) | {"without": ()})
    matrix = figures.confusion_svg(((0, 0), (3, 1)), ("$absent", "_there"))

    for svg in (many, point, use, matrix):
        assert ElementTree.fromstring(svg).tag == f"{SVG}svg"


def test_long_curves_are_averaged_in_stretches():
    steps, values = figures.thin([(step, float(step % 2)) for step in range(20_000)])

    assert len(steps) == 400
    assert values == pytest.approx([0.5] * 400)
    assert steps == sorted(steps)
    assert steps[-1] < 20_000


def test_few_speakers_have_no_speaker_interval(content: ReportContent):
    assert all(fold.outcome.speaker_intervals is None for fold in content.folds)
    assert content.pooled.outcome.speaker_intervals is not None


def test_a_report_without_curves_and_codebooks_leaves_their_sections_out(content: ReportContent):
    nothing = {"curves": {}, "codebooks": (), "timelines": ()}
    bare = tuple(f.model_copy(update=nothing) for f in content.folds)

    parsed = Page(render_html(content.model_copy(update={"folds": bare})))

    assert not {"curves", "codebooks"} & set(parsed.ids)


def test_an_absent_class_is_named():
    outcome = Outcome.of([0, 1, 1], [0, 1, 0], 3, speakers=["a", "a", "b"], **BOOTSTRAP)
    whole = build(num_folds=1)
    fold = whole.folds[0].model_copy(update={"outcome": outcome, "num_test": 3, "name": "only"})
    data = whole.model_dump() | {
        "classes": ("x", "y", "z"),
        "folds": [fold.model_dump()],
        "pooled": PooledContent.of(outcome, [outcome]).model_dump(),
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
    assert parsed.tags.count("img") == 1 + 3 + 2


def test_maps_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValidationError, match="the map has 1 centroids, but k = 2"):
        CodebookContent.of(
            9, [1, 1], map=CentroidMap(points=((0.0, 0.0),), emotions=(0,), genders=(0,))
        )
