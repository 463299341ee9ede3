"""Whether probabilities can be believed: bins of confidence, and the expected calibration error.

The error is that of Guo et al. 2017 (arXiv 1706.04599), equation 3. Bins of equal mass (Nguyen and O'Connor
2015, arXiv 1508.05154) have about as many predictions each, so that a few rare confidences do not decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.statistics.arms import Arm, Truth
from gmp_atl_dist.statistics.summary import Summary, summary

NUM_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """A point of the reliability diagram: mean confidence and accuracy of ``count`` predictions."""

    count: int
    confidence: float
    accuracy: float


def bins_of_width(
    right: Sequence[bool], confidences: Sequence[float]
) -> tuple[ReliabilityBin | None, ...]:
    """``NUM_BINS`` bins of equal width; a bin includes its upper edge. None for an empty one.

    Raises:
        ValueError: the lengths differ, or there is no prediction.
    """
    hits, values = _checked(right, confidences)
    placed = np.searchsorted(np.arange(1, NUM_BINS) / NUM_BINS, values, side="left")
    return tuple(_bin(hits, values, placed == i) for i in range(NUM_BINS))


def equal_width(right: Sequence[bool], confidences: Sequence[float]) -> tuple[ReliabilityBin, ...]:
    """The non-empty ones of :func:`bins_of_width`."""
    return tuple(found for found in bins_of_width(right, confidences) if found is not None)


def equal_mass(right: Sequence[bool], confidences: Sequence[float]) -> tuple[ReliabilityBin, ...]:
    """``NUM_BINS`` bins with equal numbers of predictions, as far as ties allow, lowest confidence first.

    Equal confidences share a bin, so the order of the predictions changes nothing. There are fewer bins if
    there are fewer different confidences.
    """
    hits, values = _checked(right, confidences)
    distinct, starts, counts = np.unique(np.sort(values), return_index=True, return_counts=True)
    # A confidence belongs to the bin in which the middle of its run of equal values falls.
    middle = (starts + (counts - 1) / 2) / len(values)
    bin_of = np.minimum((middle * NUM_BINS).astype(int), NUM_BINS - 1)
    placed = bin_of[np.searchsorted(distinct, values)]
    found = (_bin(hits, values, placed == i) for i in range(NUM_BINS))
    return tuple(each for each in found if each is not None)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Distance of accuracy and mean confidence in a bin, averaged over predictions.

    Raises:
        ValueError: there is no bin.
    """
    total = sum(found.count for found in bins)
    if total == 0:
        raise ValueError("calibration of no prediction; give at least one")
    return math.fsum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total


def arm_calibration_error(truth: Truth, arm: Arm) -> Summary | None:
    """The error of each seed in bins of equal width, summarised; None where probabilities are not known."""
    errors = []
    for seed in arm.seeds:
        if seed.probabilities is None:
            return None
        confidences = seed.probabilities[np.arange(len(truth.true)), seed.predicted]
        right = (seed.predicted == truth.true).tolist()
        errors.append(calibration_error(equal_width(right, confidences.tolist())))
    return summary(errors)


def _checked(right: Sequence[bool], confidences: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(right) != len(confidences) or not right:
        raise ValueError(
            f"{len(right)} predictions and {len(confidences)} probabilities; give one probability for "
            f"each of at least one prediction"
        )
    # A softmax of float32 can exceed 1 by its last digit.
    values = np.clip(np.asarray(confidences, dtype=np.float64), 0.0, 1.0)
    return np.asarray(right, dtype=bool), values


def _bin(hits: np.ndarray, values: np.ndarray, inside: np.ndarray) -> ReliabilityBin | None:
    count = int(inside.sum())
    if count == 0:
        return None
    return ReliabilityBin(
        count=count,
        # fsum is exact, so every machine gives the same bytes.
        confidence=math.fsum(values[inside].tolist()) / count,
        accuracy=int(hits[inside].sum()) / count,
    )
