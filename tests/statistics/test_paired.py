"""McNemar and Holm against statsmodels and by hand; one p-value of several seeds."""

from __future__ import annotations

from math import comb, erfc, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.statistics.paired import EXACT_BELOW, combined_p, holm, mcnemar

WHY = "statsmodels is not installed; it is part of the extra dev"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_mcnemar_is_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason=WHY)
    table = np.zeros((2, 2))
    for a, b in pairs:
        table[int(a), int(b)] += 1

    found = mcnemar([a for a, _ in pairs], [b for _, b in pairs])

    assert (found.only_first, found.only_second) == (table[1, 0], table[0, 1])
    if found.only_first + found.only_second:
        expected = tables.mcnemar(table, exact=found.exact, correction=True)
        assert found.p == pytest.approx(min(1.0, expected.pvalue), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason=WHY)

    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 9), (12, 12), (0, 24)])
def test_few_discordant_pairs_are_tested_exactly(first: int, second: int) -> None:
    right_a = [True] * first + [False] * second + [True] * 30
    right_b = [False] * first + [True] * second + [True] * 30

    found = mcnemar(right_a, right_b)

    n = first + second
    tail = sum(comb(n, i) for i in range(min(first, second) + 1)) / 2**n
    assert found.exact
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert found.cohens_g == pytest.approx(second / n - 0.5)


def test_many_discordant_pairs_are_tested_by_chi_square() -> None:
    first, second = 20, 40
    a = [True] * first + [False] * second
    found = mcnemar(a, [not right for right in a])

    assert not found.exact
    # chi-square = (|20 - 40| - 1)^2 / 60 with one degree of freedom: the two-sided normal tail.
    assert found.p == pytest.approx(erfc(sqrt(361 / 60 / 2)))
    assert found.cohens_g == pytest.approx(1 / 6)
    assert mcnemar([True] * EXACT_BELOW, [False] * EXACT_BELOW).exact is False


def test_arms_without_a_discordant_pair_do_not_differ() -> None:
    found = mcnemar([True, False, True], [True, False, True])

    assert (found.p, found.cohens_g) == (1.0, None)
    with pytest.raises(ValueError, match="1 and 2 predictions"):
        mcnemar([True], [True, False])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.4]) == (0.4,)
    assert holm([]) == ()
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.1])


def test_one_p_value_of_several_seeds() -> None:
    assert combined_p([0.03]) == 0.03
    assert combined_p([0.001, 0.04]) == pytest.approx(0.04)
    assert combined_p([0.001, 0.02, 0.9]) == pytest.approx(0.03)
    assert combined_p([1.0, 1.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="no p-value"):
        combined_p([])


def test_one_p_value_of_several_seeds_keeps_its_level() -> None:
    """Of tests that say the same, and of independent ones, at most 5 % are below 0.05."""
    rng = np.random.default_rng(1)
    independent = rng.random((4_000, 3)).tolist()
    same = [[p] * 3 for p in rng.random(4_000).tolist()]
    for tests in (independent, same):
        assert np.mean([combined_p(p) < 0.05 for p in tests]) < 0.06
