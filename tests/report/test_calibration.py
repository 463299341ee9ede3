"""Confidence beside accuracy, and the expected calibration error."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.report_case import build, record

from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.formats import probability
from gmp_atl_dist.report.html import render_html


def test_the_error_is_that_of_a_calculation_by_hand():
    found = Calibration.of([True, False, True, True], [0.95, 0.95, 0.55, 0.6])

    assert found.accuracy == 0.75
    assert found.confidence == pytest.approx(0.7625)
    # |0.5 - 0.95| * 2 / 4 for the last bin, |1 - 0.575| * 2 / 4 for the sixth, which includes 0.6.
    assert found.expected_calibration_error == pytest.approx(0.4375)
    assert [b.count for b in found.bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]


def test_every_probability_has_a_bin_that_includes_its_upper_edge():
    found = Calibration.of([True] * 12, [i / 10 for i in range(11)] + [1.0000001])

    assert [b.count for b in found.bins] == [2, 1, 1, 1, 1, 1, 1, 1, 1, 2]


def test_figures_that_contradict_the_predictions_are_refused():
    content = build(num_folds=1).model_dump()
    other = Calibration.of([True, False], [0.9, 0.9]).model_dump()
    with pytest.raises(ValidationError, match="calibration: 2 predictions"):
        ReportContent.model_validate({**content, "calibration": other})
    with pytest.raises(ValidationError, match=r"expected_calibration_error = 0\.4"):
        Calibration.model_validate({**other, "expected_calibration_error": 0.1})
    with pytest.raises(ValueError, match="2 predictions and 1 probabilities"):
        Calibration.of([True, False], [0.9])


def test_the_page_says_that_probabilities_are_not_calibrated():
    content = build(num_folds=1)
    page = render_html(content)

    assert "Probabilities are not calibrated." in page
    assert "on average the model is overconfident" in page
    assert "93.5\u00a0%" in page
    assert "arXiv 1706.04599" in page
    assert "errors with the highest probability" in page
    assert "damaged recordings" not in page
    # A report.json without it still gives a page.
    bare = ReportContent.model_validate({**content.model_dump(), "calibration": None})
    assert "not calibrated.</strong>" not in render_html(bare, record())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9996, ">99.9 %"),
        (1.0, ">99.9 %"),
        (0.9994, "99.9 %"),
        (0.0004, "<0.1 %"),
        (0.5, "50.0 %"),
    ],
)
def test_no_probability_is_shown_as_0_or_1(value: float, shown: str):
    assert probability(value) == shown.replace(" ", "\u00a0")
