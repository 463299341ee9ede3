"""Whether probabilities can be believed: confidence beside accuracy. A part of ``report.json``.

The expected calibration error is that of Guo et al. 2017 (arXiv 1706.04599), equation 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.outcome import TOLERANCE
from gmp_atl_dist.report.protocol import Content

NUM_BINS = 10
_UPPER_EDGES = np.arange(1, NUM_BINS) / NUM_BINS

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
    widths; a bin includes its upper edge.
    """

    accuracy: Fraction
    confidence: Fraction
    expected_calibration_error: Fraction
    bins: Annotated[tuple[CalibrationBin, ...], Field(min_length=NUM_BINS, max_length=NUM_BINS)]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name, expected in _summary(self.bins).items():
            if abs(getattr(self, name) - expected) > TOLERANCE:
                raise ValueError(f"calibration: the bins give {name} = {expected}")
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
        if len(right) != len(confidences) or not right:
            raise ValueError(
                f"{len(right)} predictions and {len(confidences)} probabilities; give one "
                f"probability for each of at least one prediction"
            )
        # A softmax of float32 can exceed 1 by its last digit.
        values = np.clip(np.asarray(confidences, dtype=np.float64), 0.0, 1.0)
        hits = np.asarray(right, dtype=bool)
        placed = np.searchsorted(_UPPER_EDGES, values, side="left")
        bins = tuple(_bin(hits[placed == i], values[placed == i]) for i in range(NUM_BINS))
        return cls(bins=bins, **_summary(bins))


def _bin(hits: np.ndarray, values: np.ndarray) -> CalibrationBin:
    count = len(values)
    if count == 0:
        return CalibrationBin(count=0, accuracy=None, confidence=None)
    # fsum is exact, so every machine gives the same bytes.
    confidence = math.fsum(values.tolist()) / count
    return CalibrationBin(count=count, accuracy=int(hits.sum()) / count, confidence=confidence)


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
