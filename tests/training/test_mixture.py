"""Shares of sources in each update: exact over all updates, and a function of the update alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.store.sources import LinkedSource
from gmp_atl_dist.training.mixture import MixedPlan, shares_of

LONGEST = 6 * SAMPLE_RATE_HZ


def plan_of(
    counts: dict[str, int], shares: dict[str, float], batch_s: float = 30.0, seed: int = 0
) -> tuple[MixedPlan, np.ndarray, np.ndarray]:
    """A plan, the samples of each utterance and the number of its source."""
    rng = np.random.default_rng(1)
    source_U = np.repeat(np.arange(len(counts)), list(counts.values()))
    num_samples_U = rng.integers(SAMPLE_RATE_HZ, LONGEST, len(source_U))
    part_U = np.arange(len(source_U)) // 7
    plan = MixedPlan(
        num_samples_U, part_U, source_U, shares, batch_s=batch_s, max_samples=LONGEST, seed=seed
    )
    return plan, num_samples_U, source_U


@given(
    share=st.floats(0.05, 0.95),
    few=st.integers(1, 30),
    many=st.integers(1, 300),
    batch_s=st.floats(1.0, 60.0),
    seed=st.integers(0, 100),
)
def test_every_source_has_its_share_of_all_updates(
    share: float, few: int, many: int, batch_s: float, seed: int
) -> None:
    shares = {"few": 1 - share, "many": share}
    plan, num_samples_U, source_U = plan_of({"few": few, "many": many}, shares, batch_s, seed)
    drawn = np.zeros(2)
    for step in range(40):
        batch = plan.batch(step)
        assert len(batch), "no update is empty"
        drawn += np.bincount(source_U[batch], weights=num_samples_U[batch], minlength=2)
    total = drawn.sum()
    for number, name in enumerate(shares):
        assert abs(drawn[number] - shares[name] * total) <= 2 * LONGEST


def test_a_source_comes_again_as_a_whole_and_in_another_order() -> None:
    plan, _, source_U = plan_of({"a": 10, "b": 200}, {"a": 0.5, "b": 0.5})
    drawn = np.concatenate([plan.batch(step) for step in range(400)])
    of_a = Counter(int(n) for n in drawn if source_U[n] == 0)
    assert max(of_a.values()) - min(of_a.values()) <= 1
    assert min(of_a.values()) > 20
    orders = {
        tuple(plan._streams[0]._order(turn)[0].tolist())  # pyright: ignore[reportPrivateUsage]
        for turn in range(20)
    }
    assert len(orders) > 15


def test_an_update_depends_on_its_number_alone() -> None:
    plan, *_ = plan_of({"a": 10, "b": 200}, {"a": 0.3, "b": 0.7})
    backwards = {step: plan.batch(step).tolist() for step in range(60, -1, -1)}
    again, *_ = plan_of({"a": 10, "b": 200}, {"a": 0.3, "b": 0.7})
    assert {step: again.batch(step).tolist() for step in range(61)} == backwards
    other, *_ = plan_of({"a": 10, "b": 200}, {"a": 0.3, "b": 0.7}, seed=1)
    assert other.batch(3).tolist() != backwards[3]


def test_micro_batches_are_the_batch() -> None:
    plan, *_ = plan_of({"a": 10, "b": 200}, {"a": 0.3, "b": 0.7})
    pieces = plan.micro_batches(5, 4)
    assert np.concatenate(pieces).tolist() == plan.batch(5).tolist()
    assert plan.epoch(5) != plan.epoch(6), "crops and masks differ when an utterance comes again"


def sources(**weights: float) -> list[LinkedSource]:
    return [LinkedSource(n, not n.startswith("u"), "", "", w) for n, w in weights.items()]


@pytest.mark.parametrize(
    ("weights", "audio", "share", "expected"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 3}, None, {"a": 0.25, "b": 0.75}),
        ({"a": 3, "b": 1}, {"a": 1, "b": 3}, None, {"a": 0.5, "b": 0.5}),
        ({"a": 1, "u": 1}, {"a": 1, "u": 99}, 0.5, {"a": 0.5, "u": 0.5}),
        ({"a": 3, "b": 1, "u": 5}, {"a": 1, "b": 3, "u": 9}, 0.2, {"a": 0.4, "b": 0.4, "u": 0.2}),
        (
            {"a": 1, "u": 1, "u2": 3},
            {"a": 1, "u": 3, "u2": 1},
            0.5,
            {"a": 0.5, "u": 0.25, "u2": 0.25},
        ),
        ({"a": 1, "u": 1}, {"a": 1, "u": 9}, 0.0, {"a": 1.0}),
        ({"a": 1, "u": 1}, {"a": 1, "u": 9}, 1.0, {"u": 1.0}),
        # A stage without unlabelled speech has no share of it.
        ({"a": 1, "u": 1}, {"a": 1, "u": 0}, 0.5, {"a": 1.0}),
    ],
)
def test_shares_follow_from_audio_weights_and_the_unlabelled_share(
    weights: dict[str, float],
    audio: dict[str, float],
    share: float | None,
    expected: dict[str, float],
) -> None:
    assert shares_of(sources(**weights), audio, share) == pytest.approx(expected)
