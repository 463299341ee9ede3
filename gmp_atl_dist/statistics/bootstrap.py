"""Percentile bootstrap over speakers, or over utterances where there are few speakers.

Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16. All arms share the
resamples, so that the difference of two arms is paired: an easy speaker is easy for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gmp_atl_dist.metrics import Bounds
from gmp_atl_dist.statistics.arms import Arm, Floats, Truth
from gmp_atl_dist.statistics.counts import Units, counts_of, scores_of, units_of

Unit: TypeAlias = Literal["speaker", "utterance"]

MIN_SPEAKERS = 5
"""Resampling fewer speakers is meaningless: two speakers have three resamples."""
FEW_SPEAKERS = 20
"""With fewer, a percentile interval over speakers tends to be too narrow."""
_CELLS_AT_ONCE = 1 << 22
_SAME = 1e-12
"""Differences below this are rounding."""


@dataclass(frozen=True)
class Resampling:
    """How resamples are drawn. The same values give the same resamples."""

    samples: int = 10_000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                f"samples = {self.samples}, confidence = {self.confidence}: give one sample or more and "
                f"a confidence between 0 and 1"
            )


def unit_of(speakers: Sequence[str]) -> Unit:
    """What is resampled in a test set with these speakers."""
    return "speaker" if len(set(speakers)) >= MIN_SPEAKERS else "utterance"


def resampled_scores(truth: Truth, arms: Sequence[Arm], how: Resampling) -> Floats:
    """(arms, samples, 3) scores of each arm in the same resamples, averaged over its seeds.

    Seeds are not resampled: in each resample every seed is scored on the drawn units, and the scores of the
    seeds are averaged.
    """
    speakers = truth.speakers if unit_of(truth.speakers) == "speaker" else None
    units = units_of(speakers, len(truth.true))
    counts = [[counts_of(truth, seed, units) for seed in arm.seeds] for arm in arms]
    scores = np.empty((len(arms), how.samples, 3))
    rng = np.random.default_rng(how.seed)
    at_once = max(1, _CELLS_AT_ONCE // units.number)
    for start in range(0, how.samples, at_once):
        part = slice(start, min(start + at_once, how.samples))
        weights = _draw(rng, units, part.stop - part.start, by_group=speakers is not None)
        for i, seeds in enumerate(counts):
            scores[i, part] = np.mean([scores_of(c, weights) for c in seeds], axis=0)
    return scores


def _draw(rng: np.random.Generator, units: Units, size: int, *, by_group: bool) -> Floats:
    """(size, units) how often each unit is drawn, with replacement."""
    n = units.number
    if by_group:  # the draws of metrics.bootstrap_interval_by_group
        return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
    drawn = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def interval(values: Floats, confidence: float) -> Bounds:
    """The percentile interval of resampled values, (samples,)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p-value of no difference: where the percentile interval just reaches 0.

    Twice the smaller share of resampled differences on one side of 0, both with one added (Davison and
    Hinkley 1997, Bootstrap Methods and their Application, section 4.2). 1 for equal arms; never 0.
    """
    below = np.count_nonzero(differences <= _SAME)
    above = np.count_nonzero(differences >= -_SAME)
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
