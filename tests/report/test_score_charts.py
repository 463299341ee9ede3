"""New figures of the report, and reports of earlier releases, which lack them."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError
from scipy.stats import binomtest
from support.report_case import BOOTSTRAP, build

from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.report.content import Outcome, PooledContent, ReportContent
from gmp_atl_dist.report.groups import GroupsContent
from gmp_atl_dist.report.html import render_html, render_json
from gmp_atl_dist.report.score_charts import reliability_panel, speakers_panel
from gmp_atl_dist.report.tables import scores_csv


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return build()


def without_new_keys(content: ReportContent) -> dict[str, Any]:
    """``report.json`` as release 0.4 wrote it."""
    data = json.loads(render_json(content))
    for key in ("equal_mass_bins", "equal_mass_error"):
        del data["calibration"][key]
    for speaker in data["groups"]["speakers"]:
        del speaker["war_interval"]
    data["pooled"].pop("uar_left_out", None)
    return data


def test_a_report_of_release_04_is_read_and_shown(content: ReportContent) -> None:
    data = without_new_keys(content)

    old = ReportContent.model_validate_json(json.dumps(data))

    assert json.loads(render_json(old)) == data, "nothing is added to it"
    page = render_html(old)
    assert "bins of equal numbers" not in page
    assert "Accuracy of each speaker" not in page
    assert "bins of equal numbers" in render_html(content)


def test_speakers_have_wilsons_interval_and_a_picture(content: ReportContent) -> None:
    for speaker in content.groups.speakers:
        hits = sum(speaker.confusion[i][i] for i in range(4))
        expected = binomtest(hits, speaker.count).proportion_ci(0.95, method="wilson")
        assert speaker.war_interval == pytest.approx((expected.low, expected.high))
    assert all(group.war_interval is None for group in content.groups.genders)
    panel = speakers_panel(content.groups.speakers, 0.5)
    assert panel is not None
    svg = ElementTree.fromstring(panel.chart)
    whiskers = [p for p in svg.iter("path") if (p.get("class") or "").startswith("line l")]
    assert len(whiskers) == len(content.groups.speakers) == 10
    assert speakers_panel(content.groups.speakers[:1], 0.5) is None
    lines = scores_csv(content).decode().splitlines()
    accuracies = [line.split(",") for line in lines if re.match("speaker,[^,]+,war,", line)]
    assert len(accuracies) == 10
    assert all(
        float(low) < float(value) < float(high)
        for *_, value, low, high in (a[:6] for a in accuracies)
    )


def test_the_reliability_picture_has_a_point_per_bin() -> None:
    found = Calibration.of([True, False, True, True], [0.95, 0.85, 0.55, 0.6])

    svg = ElementTree.fromstring(reliability_panel(found).chart)

    assert len(list(svg.iter("circle"))) == 3  # 0.55 and 0.6 share one of equal width
    assert len(found.equal_mass_bins) == 4
    assert found.equal_mass_error == pytest.approx((0.05 + 0.85 + 0.45 + 0.4) / 4)
    with pytest.raises(ValidationError, match="bins of equal mass give the error"):
        Calibration.model_validate({**found.model_dump(), "equal_mass_error": 0.9})


def test_the_interval_over_speakers_comes_first_and_says_what_it_leaves_out(
    content: ReportContent,
) -> None:
    page = render_html(content)
    assert page.index("interval over speakers") < page.index("over utterances ")
    assert "resamples of whole speakers (10)" in page
    assert "They do not cover the random seed, the choice of settings, or other corpora." in page
    few = render_html(build(num_folds=1))
    assert "interval over speakers" not in few
    assert "fewer than 5 speakers (2)" in few


def test_both_conventions_of_a_fold_without_a_class_are_shown() -> None:
    first = Outcome.of([0, 1, 1], [0, 1, 0], 3, speakers=["a", "a", "b"], **BOOTSTRAP)
    second = Outcome.of([0, 1, 2], [0, 1, 2], 3, speakers=["c", "c", "d"], **BOOTSTRAP)
    pooled = Outcome.of([0, 1, 1] * 2, [0, 1, 0] * 2, 3, speakers=list("aabaab"), **BOOTSTRAP)
    made = PooledContent.of(pooled, [first, second], "xyz")
    assert made.uar.mean == pytest.approx((0.5 + 1) / 2)  # (1 + 0.5 + 0) / 3, and 1
    assert made.uar_left_out is not None
    assert made.uar_left_out.mean == pytest.approx((0.75 + 1) / 2)
    assert PooledContent.of(second, [second], "xyz").uar_left_out is None

    whole = build(num_folds=1)
    fold = whole.folds[0].model_copy(update={"outcome": first, "num_test": 3, "name": "only"})
    data = whole.model_dump() | {
        "classes": ("x", "y", "z"),
        "folds": [fold.model_dump()],
        "pooled": PooledContent.of(first, [first], "xyz").model_dump(),
        "groups": GroupsContent().model_dump(),
        "predictions": {},
        "calibration": None,
    }
    page = re.sub(r"\s+", " ", render_html(ReportContent.model_validate(data)))
    assert "A fold lacks a class: only: z." in page
    assert "No mean mixes the two ways" in page
    data["pooled"]["uar_left_out"]["mean"] = 0.9
    with pytest.raises(ValidationError, match="not the averages of the folds"):
        ReportContent.model_validate(data)
