"""Rates and shares of a training attempt, with a clock that the test moves."""

from __future__ import annotations

import pytest

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.training.timing import TrainingPace


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_rates_and_shares_are_of_the_time_since_the_start() -> None:
    clock = Clock()
    pace = TrainingPace(world_size=4, clock=clock)
    with pace.waiting():
        clock.now_s += 20
    clock.now_s += 30
    with pace.waiting():
        clock.now_s += 10
    clock.now_s += 20
    pace.add(90 * SAMPLE_RATE_HZ)
    pace.add(70 * SAMPLE_RATE_HZ)
    assert pace.metrics(stalled_s=4) == {
        "audio_h_per_h": 4 * 160 / 80,
        "data_wait_share": 30 / 80,
        "checkpoint_stall_share": 4 / 80,
    }


def test_the_end_follows_from_the_updates_that_are_done() -> None:
    clock = Clock()
    pace = TrainingPace(world_size=1, clock=clock)
    clock.now_s += 60
    assert pace.ends_in_s(done=30, left=90) == pytest.approx(180)
    assert pace.ends_in_s(done=0, left=90) is None
    assert pace.ends_in_s(done=120, left=0) is None
