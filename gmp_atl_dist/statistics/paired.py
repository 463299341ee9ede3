"""McNemar's test, Holm's correction, and one p-value of several seeds. On scipy.

statsmodels has the first two as well (``mcnemar``, ``multipletests``). It is not a dependency, because two
short functions would be all that is used of it; the tests compare both with it where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

EXACT_BELOW = 25
"""Discordant pairs from which on the chi-square approximation is used."""


@dataclass(frozen=True)
class McNemar:
    """Two arms on the same utterances: how often only one of them is right.

    ``cohens_g`` is the share of ``only_second`` among the discordant pairs minus 0.5 (Cohen 1988,
    Statistical Power Analysis, chapter 5): 0.05 is small, 0.15 medium, 0.25 large. Positive: the second
    arm is better. None without discordant pairs, where ``p`` is 1.
    """

    only_first: int
    only_second: int
    p: float
    exact: bool
    cohens_g: float | None


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """Whether two arms are right equally often (McNemar 1947, Psychometrika 12).

    Below ``EXACT_BELOW`` discordant pairs the two-sided binomial test, else chi-square with Edwards'
    correction, as ``statsmodels.stats.contingency_tables.mcnemar``.

    Args:
        first_right: whether the first arm is right, one per utterance.
        second_right: the same of the second arm.

    Raises:
        ValueError: they differ in length.
    """
    # scipy.stats takes a second to import.
    from scipy import stats

    a, b = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} and {b.size} predictions; give one of each arm per utterance")
    first, second = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    discordant = first + second
    exact = discordant < EXACT_BELOW
    if discordant == 0:
        p = 1.0
    elif exact:
        p = float(stats.binomtest(first, discordant, 0.5).pvalue)
    else:
        p = float(stats.chi2.sf((abs(first - second) - 1) ** 2 / discordant, 1))
    g = second / discordant - 0.5 if discordant else None
    return McNemar(first, second, p, exact, g)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down correction (Holm 1979, Scandinavian Journal of Statistics 6), in the order given.

    The probability of any false rejection stays below the level, whatever the tests' dependence.

    Raises:
        ValueError: a p-value is not between 0 and 1.
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"p-values are between 0 and 1; found {wrong}")
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = reached
    return tuple(corrected)


def combined_p(p_values: Sequence[float]) -> float:
    """One p-value of several tests of one hypothesis on the same utterances, as those of several seeds.

    Rüger's bound (1978, Metrika 25): n / k times the k-th smallest, which holds for any dependence. k is
    the smallest majority, so no single seed decides. The p-value itself where there is one test.

    Raises:
        ValueError: there is no p-value.
    """
    if not p_values:
        raise ValueError("there is no p-value; give at least one")
    k = math.floor(len(p_values) / 2) + 1
    return min(1.0, len(p_values) / k * sorted(p_values)[k - 1])
