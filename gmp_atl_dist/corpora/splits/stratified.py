"""``folds.k``: speakers, or sessions, dealt into k groups that are alike in gender and emotion.

Each unit belongs to one group as a whole. The units are dealt in a seeded order, one gender after the
other, and large units first. Groups differ by at most one unit per gender, and in total. Among the groups
that allow this, the one whose emotions are then nearest to the mean of all groups gets the unit.

scikit-learn's ``StratifiedGroupKFold`` is not used. It sorts the groups by the spread of their counts, and
its seed decides between equal groups only: on EmoDB, where no two speakers have the same counts, all seeds
give the same folds. It balances the counts of utterances, so the numbers of speakers and of women differ
where a few speakers said most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from gmp_atl_dist.seeding import keyed_seed

Counted = tuple[str, str, str]
"""Unit, gender, emotion."""


def stratified_groups(
    counts: Mapping[Counted, int], k: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """The units of each of ``k`` groups, sorted. The order of ``counts`` changes nothing.

    Args:
        counts: utterances per unit, gender and emotion. A unit may have several genders.
        k: at most the number of units.
        seed: chooses the order in which units are dealt.
    """
    units = sorted({unit for unit, _, _ in counts})
    emotions = sorted({emotion for _, _, emotion in counts})
    matrix_UE = np.zeros((len(units), len(emotions) + 1))
    genders: dict[str, Counter[str]] = {unit: Counter() for unit in units}
    number = {unit: i for i, unit in enumerate(units)}
    column = {emotion: i for i, emotion in enumerate(emotions)}
    for (unit, gender, emotion), count in counts.items():
        matrix_UE[number[unit], column[emotion]] += count
        matrix_UE[number[unit], -1] += count
        genders[unit][gender] += count
    # Each column is in shares of a group's mean, so that a rare emotion counts as much as a frequent one.
    matrix_UE /= matrix_UE.sum(axis=0) / k
    kind_U = np.array([_main(genders[unit]) for unit in units])
    group_U = _dealt(matrix_UE, kind_U, _order(units, genders, kind_U, seed), k)
    return tuple(
        tuple(unit for unit, group in zip(units, group_U, strict=True) if group == g)
        for g in range(k)
    )


def _main(genders: Counter[str]) -> str:
    """The gender of a speaker; of a session with both, the pair."""
    return "+".join(sorted(genders))


def _order(
    units: list[str], genders: Mapping[str, Counter[str]], kind_U: np.ndarray, seed: int
) -> Iterable[int]:
    """The numbers of the units, one gender after the other.

    Of one gender, those with many utterances come first, because small ones can still even out. Units whose
    numbers of utterances have the same power of 2 are in seeded order.
    """

    def key(i: int) -> tuple[str, int, int]:
        size = genders[units[i]].total().bit_length()
        return str(kind_U[i]), -size, keyed_seed("folds.k", seed, units[i])

    return sorted(range(len(units)), key=key)


def _dealt(matrix_UE: np.ndarray, kind_U: np.ndarray, order: Iterable[int], k: int) -> np.ndarray:
    """int [units]: the group of each."""
    group_U = np.full(len(matrix_UE), -1)
    total_GE = np.zeros((k, matrix_UE.shape[1]))
    size_G = np.zeros(k, np.int64)
    of_kind: dict[str, np.ndarray] = {}
    for i in order:
        mine_G = of_kind.setdefault(str(kind_U[i]), np.zeros(k, np.int64))
        cost_G = ((total_GE + matrix_UE[i] - 1) ** 2 - (total_GE - 1) ** 2).sum(axis=1)
        group = min(range(k), key=lambda g: (mine_G[g], size_G[g], round(cost_G[g], 9), g))
        group_U[i] = group
        total_GE[group] += matrix_UE[i]
        size_G[group] += 1
        mine_G[group] += 1
    return group_U
