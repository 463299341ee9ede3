"""Mean, standard deviation and range over seeds or folds; the interval of a share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmp_atl_dist.metrics import Bounds


@dataclass(frozen=True)
class Summary:
    """``n`` values. ``sd`` is the sample standard deviation (n - 1); None for a single value."""

    mean: float
    sd: float | None
    lowest: float
    highest: float
    n: int


def summary(values: Sequence[float] | NDArray[np.float64]) -> Summary:
    """Mean, spread and range.

    Raises:
        ValueError: there is no value.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("the mean of no value is not defined; give one or more")
    return Summary(
        mean=float(array.mean()),
        sd=float(array.std(ddof=1)) if array.size > 1 else None,
        lowest=float(array.min()),
        highest=float(array.max()),
        n=array.size,
    )


def wilson_interval(hits: int, total: int, confidence: float) -> Bounds:
    """Wilson's score interval of a share (Wilson 1927), by ``scipy.stats``.

    It has a width even where all or none are right, so it suits the few utterances of one speaker. It takes
    utterances as independent.

    Raises:
        ValueError: there is no utterance, or more hits than utterances.
    """
    # scipy.stats takes a second to import.
    from scipy import stats

    found = stats.binomtest(hits, total).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)
