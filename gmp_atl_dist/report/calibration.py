"""Whether probabilities can be believed: confidence beside accuracy. A part of ``report.json``.

The expected calibration error is that of Guo et al. 2017 (arXiv 1706.04599), equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.outcome import TOLERANCE
from gmp_atl_dist.report.protocol import Content
from gmp_atl_dist.statistics.calibration import (
    NUM_BINS,
    ReliabilityBin,
    bins_of_width,
    calibration_error,
    equal_mass,
)

Fraction = Annotated[float, Field(ge=0, le=1 + TOLERANCE)]


class CalibrationBin(Content):
    """The predictions with a probability in one bin. An empty bin has neither of the means."""

    count: Count
    accuracy: Fraction | None
    confidence: Fraction | None


class Calibration(Content):
    """Confidence and accuracy of a set of predictions.

    ``confidence`` is the mean probability of the predicted class. ``expected_calibration_error`` is the
    distance of accuracy and mean confidence in a bin, averaged over predictions. The bins have equal
    widths; a bin includes its upper edge. ``equal_mass_bins`` have about as many predictions each, and
    ``equal_mass_error`` is the same distance over them; reports of release 0.4 and before have neither.
    """

    accuracy: Fraction
    confidence: Fraction
    expected_calibration_error: Fraction
    bins: Annotated[tuple[CalibrationBin, ...], Field(min_length=NUM_BINS, max_length=NUM_BINS)]
    equal_mass_error: Fraction | None = None
    equal_mass_bins: Annotated[tuple[CalibrationBin, ...], Field(max_length=NUM_BINS)] = ()

    @model_serializer(mode="wrap")
    def _without_no_equal_mass(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        if not self.equal_mass_bins:
            values.pop("equal_mass_error", None)
            values.pop("equal_mass_bins", None)
        return values

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name, expected in _summary(self.bins).items():
            if abs(getattr(self, name) - expected) > TOLERANCE:
                raise ValueError(f"calibration: the bins give {name} = {expected}")
        if self.equal_mass_bins:
            summed = _summary(self.equal_mass_bins)["expected_calibration_error"]
            counted = sum(found.count for found in self.equal_mass_bins)
            if self.equal_mass_error is None or abs(self.equal_mass_error - summed) > TOLERANCE:
                raise ValueError(f"calibration: bins of equal mass give the error {summed}")
            if counted != self.count:
                raise ValueError(
                    f"calibration: bins of equal mass have {counted} predictions, the others {self.count}"
                )
        return self

    @property
    def count(self) -> int:
        """Number of predictions."""
        return sum(found.count for found in self.bins)

    @property
    def gap(self) -> float:
        """Confidence minus accuracy; positive for a model that is overconfident on average."""
        return self.confidence - self.accuracy

    @classmethod
    def of(cls, right: Sequence[bool], confidences: Sequence[float]) -> Calibration:
        """Compare confidence and accuracy.

        Args:
            right: whether each prediction is right.
            confidences: probability of the predicted class of each prediction, in [0, 1].

        Raises:
            ValueError: the lengths differ, or there is no prediction.
        """
        bins = tuple(_content(found) for found in bins_of_width(right, confidences))
        mass = equal_mass(right, confidences)
        return cls(
            bins=bins,
            equal_mass_bins=tuple(_content(found) for found in mass),
            equal_mass_error=calibration_error(mass),
            **_summary(bins),
        )


def _content(found: ReliabilityBin | None) -> CalibrationBin:
    if found is None:
        return CalibrationBin(count=0, accuracy=None, confidence=None)
    return CalibrationBin(count=found.count, accuracy=found.accuracy, confidence=found.confidence)


def _summary(bins: Sequence[CalibrationBin]) -> dict[str, float]:
    filled = [
        (b.count, b.accuracy, b.confidence)
        for b in bins
        if b.accuracy is not None and b.confidence is not None
    ]
    total = sum(count for count, _, _ in filled)
    if total == 0:
        raise ValueError("calibration: all bins are empty; give at least one prediction")
    gaps = [count * abs(accuracy - confidence) for count, accuracy, confidence in filled]
    return {
        "accuracy": math.fsum(n * accuracy for n, accuracy, _ in filled) / total,
        "confidence": math.fsum(n * confidence for n, _, confidence in filled) / total,
        "expected_calibration_error": math.fsum(gaps) / total,
    }
