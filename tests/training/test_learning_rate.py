"""The learning rate follows from the update alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.training.schedule import learning_rate


def rates(total: int, fraction: float, lr: float = 1e-3) -> list[float]:
    config = OptimConfig(steps=total, lr=lr, warmup_fraction=fraction)
    return [learning_rate(config, step, total) for step in range(total)]


@given(total=st.integers(1, 400), fraction=st.floats(0, 1), lr=st.floats(1e-8, 10))
def test_it_rises_to_its_peak_and_falls(total: int, fraction: float, lr: float) -> None:
    found = rates(total, fraction, lr)
    peak = found.index(max(found))

    assert all(0 < rate <= lr * (1 + 1e-12) for rate in found)
    assert max(found) == pytest.approx(lr)
    assert all(a < b for a, b in pairwise(found[: peak + 1]))
    assert all(a >= b for a, b in pairwise(found[peak:]))


@given(total=st.integers(20, 400), fraction=st.floats(0.05, 0.5))
def test_both_sides_are_straight_and_the_end_is_near_zero(total: int, fraction: float) -> None:
    found = rates(total, fraction)
    warmup = round(fraction * total)
    for side in (found[:warmup], found[warmup:]):
        steps = [b - a for a, b in pairwise(side)]
        assert steps == pytest.approx([steps[0]] * len(steps) if steps else [])
    assert found[-1] <= 1e-3 / (total - warmup) * (1 + 1e-9)


def test_a_single_update_takes_the_whole_rate() -> None:
    assert rates(1, 0.1) == [1e-3]
