"""The content, the tables and the page of a sweep."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.latex import read_latex_table
from support.report_case import record
from support.sweep_case import CLASSES, PEOPLE, arm, report

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.report.html import render_json
from gmp_atl_dist.report.predictions import PredictionsContent
from gmp_atl_dist.report.sweep_building import sweep_content
from gmp_atl_dist.report.sweep_cells import (
    DifferenceCell,
    NamedCell,
    ScoreCell,
    SweepTable,
    TableColumn,
)
from gmp_atl_dist.report.sweep_content import SweepContent
from gmp_atl_dist.report.sweep_downloads import to_csv, to_latex, to_markdown
from gmp_atl_dist.report.sweep_html import (
    JSON_NAME,
    PAGE_NAME,
    render_sweep_html,
    render_sweep_json,
    write_sweep_page,
)
from gmp_atl_dist.report.sweep_input import (
    ArmReports,
    CellReport,
    MissingCell,
    SeedReports,
    StageCost,
)
from gmp_atl_dist.report.sweep_references import all_references, references_for
from gmp_atl_dist.report.sweep_stored import ReportPlace, stored_arms, stored_cell
from gmp_atl_dist.report.sweep_tables import tables_of
from gmp_atl_dist.report.tables import stored_predictions_csv
from gmp_atl_dist.statistics.arms import NotComparableError
from gmp_atl_dist.statistics.bootstrap import Resampling
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import StageRun
from gmp_atl_dist.store.writer import ArtifactWriter

HOW = Resampling(samples=200)
SMALL: dict[str, Any] = {"per_speaker": 12}


@pytest.fixture(scope="module")
def arms() -> list[ArmReports]:
    return [
        arm("plain", "plain fine-tuning", 0.4, seeds=(0, 1), retrained=False, **SMALL),
        arm(
            "gmp_atl",
            "Größe & <b>",
            0.8,
            seeds=(0, 1),
            changes={"finetune": {"epochs": 3}},
            **SMALL,
        ),
        arm("transductive", "", 0.8, seeds=(0, 1), protocol="transductive", labels=True, **SMALL),
    ]


@pytest.fixture(scope="module")
def content(arms: list[ArmReports]) -> SweepContent:
    return sweep_content("arms", arms, how=HOW)


@pytest.fixture(scope="module")
def page(content: SweepContent) -> str:
    return render_sweep_html(content)


def test_scores_are_means_over_seeds_of_all_folds_together(
    content: SweepContent, arms: list[ArmReports]
):
    for made, given in zip(content.arms, arms, strict=True):
        each = [seed.reports[0].content.pooled.outcome for seed in given.seeds]
        assert made.figures is not None
        found = made.figures.scores
        assert found["uar"].over_seeds.mean == pytest.approx(np.mean([o.scores.uar for o in each]))
        assert found["uar"].over_seeds.sd == pytest.approx(
            np.std([o.scores.uar for o in each], ddof=1)
        )
        assert found["war"].over_seeds.mean == pytest.approx(np.mean([o.scores.war for o in each]))
        assert np.allclose(made.confusion, np.mean([o.confusion for o in each], axis=0))
    plain, better, _ = content.arms
    assert plain.figures
    assert plain.figures.difference is None
    assert better.figures
    assert better.figures.difference
    assert better.figures.difference.scores["uar"].interval[0] > 0


def test_one_report_per_fold_gives_the_same_figures_as_one_of_all_folds():
    whole = [arm("a", "", 0.4, seeds=(0,), **SMALL), arm("b", "", 0.7, seeds=(0,), **SMALL)]
    cut = []
    for given in whole:
        stored = given.seeds[0].reports[0].content
        reports = []
        for fold in stored.folds:
            of_fold = report(0.0, 0, only=(fold.name,), **SMALL)
            rows = [i for i, name in enumerate(stored.predictions.folds) if name == fold.name]
            columns = {
                name: tuple(getattr(stored.predictions, name)[i] for i in rows)
                for name in type(stored.predictions).model_fields
            }
            part = of_fold.model_copy(
                update={
                    "folds": (fold,),
                    "predictions": stored.predictions.model_copy(update=columns),
                }
            )
            reports.append(CellReport(part))
        cut.append(ArmReports(given.name, "", (SeedReports("0", tuple(reports)),)))

    a, b = sweep_content("x", whole, how=HOW), sweep_content("x", cut, how=HOW)

    assert [x.figures for x in a.arms] == [x.figures for x in b.arms]
    assert [len(x.cells) for x in b.arms] == [2, 2]


def test_a_seed_that_lacks_a_fold_is_in_no_figure_and_is_named():
    broken = arm("gmp_atl", "", 0.7, seeds=(0,), **SMALL)
    half = SeedReports("1", (CellReport(report(0.1, 1, only=("1",), **SMALL)),))
    broken = ArmReports(broken.name, "", (*broken.seeds, half))
    missing = [
        MissingCell("gmp_atl", "1", "2", "OSError: disk full"),
        MissingCell("dead", "0", "1", "ValueError: <script>"),
    ]

    made = sweep_content(
        "x",
        [arm("plain", "", 0.4, seeds=(0, 1), **SMALL), broken, ArmReports("dead", "", ())],
        missing=missing,
        how=HOW,
    )

    assert [a.name for a in made.arms if a.figures] == ["plain", "gmp_atl"]
    assert made.arms[1].seeds == ("0",)
    assert made.arms[1].incomplete == ("1",)
    assert [(m.arm, m.seed, m.fold, m.reason) for m in made.missing] == [
        ("gmp_atl", "1", "2", "OSError: disk full"),
        ("dead", "0", "1", "ValueError: <script>"),
        ("dead", "0", "2", "no result"),
    ]
    assert "dead has no seed with a result in every fold" in " ".join(made.sentences)
    page = render_sweep_html(made)
    assert "3 cells have no result" in page
    assert "OSError: disk full" in page
    assert "<script>" not in page


def test_without_the_baseline_or_with_one_arm_there_are_scores_and_no_difference():
    alone = sweep_content("x", [arm("a", "", 0.6, seeds=(0, 1), **SMALL)], how=HOW)
    no_base = sweep_content(
        "x",
        [
            ArmReports("base", "", ()),
            arm("a", "", 0.6, (0,), **SMALL),
            arm("b", "", 0.5, (0,), **SMALL),
        ],
        how=HOW,
    )

    for made in (alone, no_base):
        assert not made.compared
        found = made.arms[-1].figures
        assert found is not None
        low, high = found.scores["uar"].interval
        assert low < found.scores["uar"].over_seeds.mean < high
        assert "p_holm" not in [c.key for c in tables_of(made)["arms"].columns]
        assert "Line: 95 % interval of the paired difference" not in render_sweep_html(made)
    assert any("The baseline base has no complete seed" in s for s in no_base.sentences)


def test_nothing_complete_is_said_and_is_no_error():
    half = SeedReports("0", (CellReport(report(0.5, 0, only=("1",), **SMALL)),))
    made = sweep_content("x", [ArmReports("a", "", (half,))], folds=("1", "2"), how=HOW)

    assert made.test_set is None
    assert "So there is no score" in render_sweep_html(made)


def test_arms_of_other_classes_or_utterances_are_refused(arms: list[ArmReports]):
    other = arm("other", "", 0.5, (0,), classes=("angry", "happy", "sad"), **SMALL)
    with pytest.raises(NotComparableError, match="other, seed 0: angry, happy, sad"):
        sweep_content("x", [arms[0], other], how=HOW)
    with pytest.raises(NotComparableError, match="other"):
        sweep_content("x", [arms[0], arm("other", "", 0.5, (0,), per_speaker=13)], how=HOW)


def test_another_protocol_is_said_beside_the_difference(content: SweepContent, page: str):
    assert any("transductive follows the protocol transductive" in s for s in content.sentences)
    assert "transductive protocol." in page


def test_what_arms_change_is_shown_and_seeds_are_not(content: SweepContent):
    assert [(s.key, s.values) for s in content.settings] == [("finetune.epochs", ("40", "3", "40"))]


def test_errors_of_all_models_come_first_with_pictures_and_labels(content: SweepContent):
    first = content.errors[0]
    assert first.wrong == first.models == content.num_models == 6
    assert content.num_always_wrong >= 5
    assert [e.wrong for e in content.errors] == sorted(
        (e.wrong for e in content.errors), reverse=True
    )
    assert all(sum(n for _, n in e.predicted) == e.models for e in content.errors)
    assert any(e.spectrogram and e.scales for e in content.errors)


def test_shared_artefacts_are_counted_once(content: SweepContent):
    plain, better, _ = content.arms
    # Two seeds and two folds of fine-tuning, and the corpus.
    assert (plain.alone.artefacts, plain.added.artefacts) == (5, 4)
    assert plain.alone.device_hours == pytest.approx({"CPU": 30 * 4 / 3600, "GPU": 4 * 120 / 3600})
    assert better.alone.artefacts == 1 + 2 * 2 * 6
    # The other arm has the same skill, so here all but the corpus is shared with it.
    assert better.added.artefacts == 0
    assert content.cost.artefacts == 1 + 4 + 24
    assert content.cost.size_bytes == (5 << 20) + (28 << 20)


def test_prices_are_of_the_devices_that_have_one(arms: list[ArmReports], content: SweepContent):
    assert content.cost.price is None
    assert "price" not in [column.key for column in tables_of(content)["cost"].columns]
    paid = sweep_content("arms", arms, how=HOW, prices={"GPU": 3.0}, currency="EUR")
    gpu_hours = 28 * 120 / 3600
    assert paid.cost.price == pytest.approx(3 * gpu_hours)
    assert paid.arms[0].alone.price == pytest.approx(3 * 4 * 120 / 3600)
    assert paid.arms[1].added.price == 0
    table = tables_of(paid)["cost"]
    assert table.columns[-1].title == "Price (EUR)"
    assert table.lines()[-1][-1].first == f"{3 * gpu_hours:,.2f}"
    both = sweep_content("arms", arms, how=HOW, prices={"GPU": 3.0, "CPU": 0.1})
    assert both.cost.price == pytest.approx(3 * gpu_hours + 0.1 * 4 * 30 / 3600)


def test_what_is_not_known_of_a_cost_is_counted():
    given = arm("a", "", 0.5, seeds=(0,), **SMALL)
    cell = replace(given.seeds[0].reports[0], stages=(StageCost("f" * 64, "ingest"),))
    made = sweep_content("x", [ArmReports("a", "", (SeedReports("0", (cell,)),))], how=HOW)

    assert (made.cost.artefacts, made.cost.unknown) == (1, 1)
    assert made.cost.size_bytes is None
    assert tables_of(made)["cost"].lines()[0][4].first == "–"  # noqa: RUF001


def test_references_are_of_the_corpus_and_its_classes_only():
    assert {r.system for r in references_for("iemocap", 4)} >= {
        "GMP-ATL, HuBERT",
        "WavLM large, frozen",
    }
    assert references_for("iemocap", 6) == ()
    assert references_for("nemo", 6) == ()
    assert [r.uar for r in references_for("ravdess", 8)] == [0.654]
    for figure in all_references():
        assert figure.protocol
        assert figure.url.startswith("https://arxiv.org/abs/")
        assert (figure.uar or figure.war or 0) > 0.4


def test_the_same_content_gives_the_same_bytes(
    content: SweepContent, arms: list[ArmReports], page: str
):
    again = SweepContent.model_validate_json(render_sweep_json(content))

    assert render_sweep_html(again) == page
    assert render_sweep_json(sweep_content("arms", arms, how=HOW)) == render_sweep_json(content)


def test_a_link_must_stay_in_the_store(arms: list[ArmReports]):
    for link in ("javascript:alert(1)", "https://example.org", "//host/x", "/etc/passwd"):
        seed = arms[0].seeds[0]
        bad = SeedReports("0", (replace(seed.reports[0], link=link),))
        with pytest.raises(ValidationError, match="relative to the page"):
            sweep_content("x", [ArmReports("a", "", (bad,))], how=HOW)


class Page(HTMLParser):
    """Tags that are open, and what a browser could load or run."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []  # pyright: ignore
        self.links += [v for k in ("href", "src") if (v := found.get(k))]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_self_contained_well_formed_and_escaped(content: SweepContent, page: str):
    found = Page(page)

    assert found.open == []
    assert "script" not in found.tags
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        if link.startswith("#"):
            assert link[1:] in found.ids
        else:
            assert link.startswith(("data:", "../../runs/"))
    assert "Größe &amp; &lt;b&gt;" in page
    for speaker in PEOPLE[:4]:
        assert speaker in page


def test_the_page_shows_figures_with_their_kind_of_interval(content: SweepContent, page: str):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    arm = content.arms[1]
    assert arm.figures
    assert arm.figures.difference
    uar = arm.figures.scores["uar"]
    assert f"{100 * uar.over_seeds.mean:.1f} ± {100 * (uar.over_seeds.sd or 0):.1f}" in text
    assert f"{100 * arm.figures.difference.scores['uar'].value:+.1f}" in text
    assert "bootstrap interval of the mean, over speakers" in text
    assert "They do not cover the random seed" in text


TABLE = SweepTable(
    "t",
    "50 % of _all_\nthings",
    (
        TableColumn("name", "Na|me", "named"),
        TableColumn("score", "UAR (%)", "score"),
        TableColumn("change", "Change", "difference"),
        TableColumn("p", "p", "p"),
    ),
    (
        (
            NamedCell("[a]_b", r"100 % & $x^2 \ {~} #1"),
            ScoreCell(0.5, 0.01, (0.4, 0.6)),
            None,
            0.0002,
        ),
        (
            NamedCell("ąę", "Ελλάδα 中文 عربي"),
            ScoreCell(0.25),
            DifferenceCell(-0.011, (-0.02, 0.001)),
            0.25,
        ),
    ),
    ("a <note>",),
)


def test_latex_is_escaped_and_says_what_other_scripts_need():
    lines = to_latex(TABLE).decode().splitlines()

    assert lines[0] == "% 50 % of _all_ things"
    assert lines[2] == (
        "% Letters of other scripts (Arabic, Cjk, Greek): compile with XeLaTeX or LuaLaTeX and a font that "
        "has them."
    )
    assert r"\begin{tabular}{lrrr}" in lines
    assert lines[-4] == (
        r"{}[a]\_b (100 \% \& \$x\textasciicircum{}2 \textbackslash{} \{\textasciitilde{}\} \#1) & "
        r"50.0 $\pm$ 1.0 [40.0 to 60.0] & -- & $<$0.001 \\"
    )
    assert lines[-3] == (r"{}ąę (Ελλάδα 中文 عربي) & 25.0 & $-$1.1 [$-$2.0 to +0.1] & 0.250 \\")


def test_every_latex_table_can_be_set(arms: list[ArmReports]):
    nasty = r"[a_b] 5 % & #1 ^~ \ {x} <1 | $y"
    given = [replace(arms[0], name=nasty), replace(arms[1], name="*other*")]
    missing = [MissingCell(nasty, "7", "1", "OSError: C:\\x_y is 100 % full\n  & gone")]
    made = sweep_content("x", given, missing=missing, how=HOW, prices={"GPU": 2.0})
    tables = tables_of(made)
    assert len(tables) >= 12
    for table in tables.values():
        heading, *rows = read_latex_table(to_latex(table).decode())
        assert heading == [" ".join(column.title.split()) for column in table.columns]
        assert len(rows) == len(table.rows)
        if table.columns[0].key == "arm":
            assert all(row[0].startswith((nasty, "*other*", "all arms")) for row in rows)
    with pytest.raises(AssertionError, match="5 % off"):
        read_latex_table(to_latex(tables["arms"]).decode().replace(r"5 \%", "5 % off"))


def test_markdown_and_csv_of_the_same_table():
    text = to_markdown(TABLE).decode()
    assert text.splitlines()[0] == r"| Na\|me | UAR (%) | Change | p |"
    assert text.splitlines()[1] == "| --- | ---: | ---: | ---: |"
    assert text.splitlines()[-1] == r"- a \<note\>"
    assert r"\[a\]\_b" in text

    header, first, second = csv.reader(io.StringIO(to_csv(TABLE).decode()))
    assert header == [
        *("name", "name_title", "score", "score_sd", "score_low", "score_high"),
        *("change", "change_low", "change_high", "p"),
    ]
    assert first[2:] == ["0.500000", "0.010000", "0.400000", "0.600000", "", "", "", "0.0002"]
    assert second[:3] == ["ąę", "Ελλάδα 中文 عربي", "0.250000"]
    assert second[6:] == ["-0.011000", "-0.020000", "0.001000", "0.25"]


def test_files_are_written_whole(content: SweepContent, page: str, tmp_path: Path):
    store = Store.open(str(tmp_path))
    write_sweep_page(store, "sweeps/x", content)

    assert store.read(f"sweeps/x/{PAGE_NAME}").decode() == page
    assert SweepContent.model_validate_json(store.read(f"sweeps/x/{JSON_NAME}")) == content
    assert sorted(p.name for p in (tmp_path / "sweeps" / "x").iterdir()) == [PAGE_NAME, JSON_NAME]


def test_every_class_and_arm_has_a_row(content: SweepContent):
    tables = tables_of(content)

    assert [row[0] for row in tables["classes"].rows] == list(CLASSES)
    assert len(tables["confusion"].rows) == len(CLASSES) * 3
    assert {row[0] for row in tables["speakers"].rows} == set(PEOPLE)
    assert len(tables["lineage"].rows) == 3 * 2 * 2
    assert {row[3] for row in tables["lineage"].rows} == {"a1" * 32}


def test_stored_reports_are_read_with_durations_sizes_and_all_predictions(tmp_path: Path):
    store = Store.open(str(tmp_path))
    whole = report(0.5, 0, **SMALL)
    rows = stored_predictions_csv(whole)
    fold = whole.folds[0]
    warmup = ArtifactWriter(store, ArtifactKey("warmup", fold.artefacts["warmup"]))
    warmup.put_file("model.safetensors", b"1234567")
    warmup.seal(version=1, science={}, inputs={})
    writer = ArtifactWriter(store, ArtifactKey("report", "d" * 64))
    without = whole.model_copy(update={"predictions": PredictionsContent()})
    writer.put_file("report.json", render_json(without))
    writer.put_file("predictions.csv", rows)
    sealed = writer.seal(version=1, science={}, inputs={})
    stages = tuple(
        StageRun(
            label=f"warmup {name}",
            name="warmup",
            fold=name,
            kind="warmup",
            fingerprint=whole.folds[i].artefacts["warmup"],
            state=state,  # pyright: ignore[reportArgumentType]
            attempt=0,
            started_s=0.0,
            duration_s=duration,
        )
        for i, (name, state, duration) in enumerate((("1", "done", 12.5), ("2", "found", None)))
    )
    cell = stored_cell(
        sealed, record().model_copy(update={"stages": stages}), "../../runs/a/report.html"
    )

    costs = {cost.fingerprint: cost for cost in cell.stages}
    first, second = (costs[f.artefacts["warmup"]] for f in whole.folds)
    assert (first.duration_s, first.size_bytes) == (12.5, 7)
    assert (second.duration_s, second.size_bytes) == (None, None)
    made = sweep_content("x", [ArmReports("a", "", (SeedReports("0", (cell,)),))], how=HOW)
    same = sweep_content(
        "x", [ArmReports("a", "", (SeedReports("0", (CellReport(whole),)),))], how=HOW
    )
    assert made.arms[0].figures == same.arms[0].figures


def test_a_report_without_predictions_is_refused():
    without = report(0.5, 0, **SMALL).model_copy(update={"predictions": PredictionsContent()})
    with pytest.raises(ValueError, match=r"a, seed 0, fold 1: its report\.json has no predictions"):
        sweep_content("x", [ArmReports("a", "", (SeedReports("0", (CellReport(without),)),))])


def test_arms_are_read_from_the_store_and_linked_to_the_pages_of_their_runs(tmp_path: Path):
    store = Store.open(str(tmp_path))
    for i, letter in enumerate("de"):
        writer = ArtifactWriter(store, ArtifactKey("report", letter * 64))
        writer.put_file("report.json", render_json(report(0.5, i, **SMALL)))
        writer.seal(version=1, science={}, inputs={})
    store.put("runs/a-0/report.html", b"<p>")
    places = [
        ReportPlace("a", "an arm", "0", "a-0", "d" * 64),
        ReportPlace("a", "an arm", "1", "a-1", "e" * 64),
    ]

    (found,) = stored_arms(store, places, "sweeps/x")

    assert (found.name, found.title) == ("a", "an arm")
    assert [seed.reports[0].link for seed in found.seeds] == ["../../runs/a-0/report.html", ""]
    assert sweep_content("x", [found], how=HOW).arms[0].seeds == ("0", "1")
    with pytest.raises(ArtifactError, match="of a seed 2 is not there"):
        stored_arms(store, [ReportPlace("a", "", "2", "a-2", "f" * 64)], "sweeps/x")
