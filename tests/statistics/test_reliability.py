"""Bins of confidence, against the report's calibration and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from gmp_atl_dist.report.calibration import Calibration
from gmp_atl_dist.statistics.arms import Cell, PredictedUtterance, arms_of
from gmp_atl_dist.statistics.calibration import (
    arm_calibration_error,
    calibration_error,
    equal_mass,
    equal_width,
)

PREDICTIONS = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80)


@given(PREDICTIONS)
def test_bins_of_equal_width_are_those_of_the_report(found: list[tuple[bool, float]]) -> None:
    right, confidences = [r for r, _ in found], [c for _, c in found]

    bins = equal_width(right, confidences)

    report = Calibration.of(right, confidences)
    assert [(b.count, b.confidence, b.accuracy) for b in bins] == [
        (b.count, b.confidence, b.accuracy) for b in report.bins if b.count
    ]
    assert calibration_error(bins) == pytest.approx(report.expected_calibration_error)


def test_bins_of_equal_mass_are_scikit_learns_without_ties() -> None:
    rng = np.random.default_rng(2)
    confidences = rng.random(200) ** 3
    right = rng.random(200) < confidences

    bins = equal_mass(right.tolist(), confidences.tolist())

    assert [b.count for b in bins] == [20] * 10
    accuracy, confidence = calibration_curve(right, confidences, n_bins=10, strategy="quantile")
    assert [b.accuracy for b in bins] == pytest.approx(accuracy.tolist())
    assert [b.confidence for b in bins] == pytest.approx(confidence.tolist())


@given(PREDICTIONS, st.randoms(use_true_random=False))
def test_the_order_of_predictions_changes_nothing(found, shuffle) -> None:
    mixed = shuffle.sample(found, len(found))
    bins = [equal_mass([r for r, _ in rows], [c for _, c in rows]) for rows in (found, mixed)]

    assert bins[0] == bins[1]
    assert sum(b.count for b in bins[0]) == len(found)
    assert [b.confidence for b in bins[0]] == sorted(b.confidence for b in bins[0])


def test_equal_confidences_share_a_bin() -> None:
    (only,) = equal_mass([True, False, True, True], [0.9] * 4)

    assert (only.count, only.accuracy) == (4, 0.75)
    assert calibration_error([only]) == pytest.approx(0.15)
    with pytest.raises(ValueError, match="no prediction"):
        calibration_error([])
    with pytest.raises(ValueError, match="1 predictions and 2 probabilities"):
        equal_mass([True], [0.5, 0.5])


def test_the_error_of_an_arm_is_that_of_its_seeds() -> None:
    def cell(seed: str, p: float, known: bool = True) -> Cell:
        probabilities = (p, 1 - p) if known else ()
        rows = [
            PredictedUtterance(f"u{i}", "s", "male", "x" if i else "y", "x", probabilities)
            for i in range(4)
        ]
        return Cell("a", seed, "f", rows)

    truth, (arm,) = arms_of([cell("0", 0.75), cell("1", 0.95)], ("x", "y"))
    error = arm_calibration_error(truth, arm)
    assert error is not None
    assert (error.mean, error.highest) == pytest.approx((0.1, 0.2))
    truth, (arm,) = arms_of([cell("0", 0.75), cell("1", 0.95, known=False)], ("x", "y"))
    assert arm_calibration_error(truth, arm) is None
