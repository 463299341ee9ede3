"""What stands side by side on the page can be compared, or the page says that it cannot."""

from __future__ import annotations

import re

import pytest
from support.latex import read_latex_table
from support.report_case import BOOTSTRAP, CLASSES, build, record

from gmp_atl_dist.cli.words import size
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.html import render_html
from gmp_atl_dist.report.run_facts import RunFacts
from gmp_atl_dist.report.tables import scores_csv, scores_latex


@pytest.fixture(scope="module")
def lacking() -> ReportContent:
    """One woman without a sad utterance, one man with all classes."""
    true, predicted = [0, 1, 2, 0, 1, 2, 3], [0, 1, 1, 0, 1, 2, 3]
    who, genders = ["w"] * 3 + ["m"] * 4, ["female"] * 3 + ["male"] * 4
    groups = GroupsContent.of(true, predicted, who, genders, len(CLASSES), **BOOTSTRAP)
    return build(num_folds=1).model_copy(update={"groups": groups})


def text_of(page: str) -> str:
    shown = re.sub(r"<[^>]+>", " ", page.partition("</style>")[2])
    return " ".join(shown.replace("\u00a0", " ").split())


def test_the_uar_of_a_gender_says_over_how_many_classes_and_speakers(lacking: ReportContent):
    shown = text_of(render_html(lacking))

    assert "female over 3 classes (no utterance of sad), 1 speaker;" in shown
    assert "male over 4 classes, 1 speaker." in shown
    assert "UARs over different numbers of classes cannot be compared." in shown
    assert "The score of one speaker says nothing about a gender." in shown
    assert "has no interval" in shown
    assert "female 66.7 % 3 of 4 66.7 % 1 3 " in shown
    lines = scores_csv(lacking).decode().splitlines()
    assert lines[0].endswith(",utterances,classes,speaker_low,speaker_high")
    assert "gender,female,uar,0.666667,,,3,3,," in lines
    assert len({line.count(",") for line in lines}) == 1


def test_equal_genders_have_no_such_words():
    shown = text_of(render_html(build(num_folds=1)))

    assert "cannot be compared" not in shown
    assert "has no interval" not in shown


def test_stages_that_were_done_before_have_no_duration():
    run = record()
    first = run.stages[0].model_copy(update={"duration_s": 0.0})
    run = run.model_copy(update={"stages": (first, *run.stages[1:])})
    facts = RunFacts.of(run)
    page = render_html(build(num_folds=1), run)

    assert (facts.stages[0].duration_s, facts.stages[0].time_share) == (None, None)
    assert "ingest done before – – – –" in text_of(page)  # noqa: RUF001
    assert "Sum of the stages: 1 h 02 min. Wall time of all attempts: 16 min 40 s." in text_of(page)


def test_hashes_are_called_by_what_they_are():
    content, run = build(num_folds=1), record()
    sealed, page = text_of(render_html(content)), text_of(render_html(content, run))
    identity = content.artefacts["ingest"]

    assert f"Stage Identity ingest {identity}" in sealed
    assert f"Stage Identity Fingerprint ingest {identity} {'e' * 64}" in page


def test_the_latex_table_has_the_name_of_the_page():
    content, run = build(num_folds=1), record()

    rows = read_latex_table(scores_latex(content, "GMP-ATL on A\nB").decode())
    assert len(rows) == 2 + (len(content.folds) if len(content.folds) > 1 else 0)
    assert scores_latex(content, "GMP-ATL on A\nB").startswith(b"% GMP-ATL on A B; protocol: clean")
    assert "Berlin%20EmoDB" in render_html(content, run)
    assert "a%20corpus%20of" in render_html(content)


def test_the_terminal_has_the_units_of_the_page():
    assert [size(n) for n in (None, 1536, 3 << 20, 3 << 30)] == [
        "",
        "1.5 KiB",
        "3.0 MiB",
        "3.00 GiB",
    ]
