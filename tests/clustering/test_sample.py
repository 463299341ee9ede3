"""Which utterances and frames are heard: by name alone, balanced where asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.clustering.sample import (
    FrameSample,
    UtteranceSample,
    initialization_rows,
    plan_sample,
)
from gmp_atl_dist.config import ClusterConfig


def corpus(seed: int, count: int, groups: int = 1) -> tuple[list[str], list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = [f"u{i:05d}" for i in range(count)]
    # Uneven: the first group is the largest.
    names = [f"g{min(int(rng.exponential(1.0)), groups - 1)}" for _ in ids]
    return ids, names, rng.integers(1, 120, size=count)


def taken(
    sample: FrameSample, ids: list[str], groups: list[str], frames: np.ndarray
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for utterance_id, group, count in zip(ids, groups, frames.tolist(), strict=True):
        if sample.utterances.holds(utterance_id, group):
            rows = sample.rows(utterance_id, group, count)
            found[utterance_id] = list(range(count)) if rows is None else rows.tolist()
    return found


@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 300),
    wanted=st.integers(1, 30_000),
    spread=st.sampled_from([1.0, 2.0, 4.0]),
)
def test_the_sample_does_not_depend_on_order_and_is_near_its_size(
    seed: int, count: int, wanted: int, spread: float
) -> None:
    ids, groups, frames = corpus(seed, count)
    config = ClusterConfig(sample_frames=wanted, sample_spread=spread, seed=seed)
    sample = plan_sample(config, ids, groups, frames)
    found = taken(sample, ids, groups, frames)
    back = taken(sample, ids[::-1], groups[::-1], frames[::-1])

    assert found == back
    for utterance_id, rows in found.items():
        assert rows == sorted(set(rows)), utterance_id
    held = sum(int(n) for i, n in zip(ids, frames, strict=True) if i in found)
    total = sum(map(len, found.values()))
    # Each utterance's share is rounded up or down.
    assert abs(total - min(wanted, held)) <= len(found)


def test_all_is_every_frame_and_is_the_default_of_small_corpora() -> None:
    ids, groups, frames = corpus(0, 50)
    for config in (ClusterConfig(sample_frames="all"), ClusterConfig()):
        sample = plan_sample(config, ids, groups, frames)
        assert sample.utterances.is_all
        found = taken(sample, ids, groups, frames)
        assert [len(found[i]) for i in ids] == frames.tolist()


@pytest.mark.parametrize("balance", ["speaker", "gender", "emotion"])
def test_groups_give_the_same_as_far_as_they_have_it(balance: str) -> None:
    ids, groups, frames = corpus(1, 4000, groups=4)
    sizes = {g: int(frames[np.array(groups) == g].sum()) for g in sorted(set(groups))}
    wanted = 3 * min(sizes.values()) + 1000
    config = ClusterConfig.model_validate({"sample_frames": wanted, "balance": balance})
    sample = plan_sample(config, ids, groups, frames)
    assert sample.utterances.by == balance
    found = taken(sample, ids, groups, frames)
    given_by = dict.fromkeys(sizes, 0)
    for utterance_id, group in zip(ids, groups, strict=True):
        given_by[group] += len(found.get(utterance_id, []))
    assert sum(given_by.values()) == pytest.approx(wanted, rel=0.05)
    fair = wanted / len(sizes)
    for group, size in sizes.items():
        least = min(size, fair)
        assert given_by[group] == pytest.approx(least, rel=0.1) or given_by[group] > least
    uneven = taken(
        plan_sample(ClusterConfig(sample_frames=wanted), ids, groups, frames), ids, groups, frames
    )
    largest = max(sizes, key=lambda g: sizes[g])
    of_largest = sum(
        len(uneven.get(i, [])) for i, g in zip(ids, groups, strict=True) if g == largest
    )
    assert of_largest > 1.3 * given_by[largest]


def test_all_of_balanced_groups_is_as_much_as_the_smallest_has() -> None:
    ids, groups, frames = corpus(2, 3000, groups=3)
    sizes = {g: int(frames[np.array(groups) == g].sum()) for g in sorted(set(groups))}
    config = ClusterConfig(sample_frames="all", balance="emotion")
    found = taken(plan_sample(config, ids, groups, frames), ids, groups, frames)
    given_by = dict.fromkeys(sizes, 0)
    for utterance_id, group in zip(ids, groups, strict=True):
        given_by[group] += len(found.get(utterance_id, []))
    for number in given_by.values():
        assert number == pytest.approx(min(sizes.values()), rel=0.1)


def test_a_group_of_one_frame_gives_it() -> None:
    ids, groups = ["a", "b", "c"], ["ang", "neu", "neu"]
    frames = np.array([1, 500, 500])
    config = ClusterConfig(sample_frames=100, sample_spread=20.0, balance="emotion")
    assert taken(plan_sample(config, ids, groups, frames), ids, groups, frames)["a"] == [0]


def test_every_utterance_gives_its_share_and_another_seed_takes_others() -> None:
    sample = FrameSample(UtteranceSample(1.0, 0), 0.1)
    rows = sample.rows("u", "", 1000)
    other = FrameSample(UtteranceSample(1.0, 1), 0.1).rows("u", "", 1000)
    assert rows is not None
    assert other is not None
    assert len(rows) in (100, 101)
    assert 350 < rows.mean() < 650
    assert set(rows) != set(other)


def test_another_seed_takes_other_utterances() -> None:
    ids = [f"u{i}" for i in range(200)]
    one, other = (UtteranceSample(0.5, seed).mask(ids) for seed in (0, 1))
    assert one == UtteranceSample(0.5, 0).mask(ids)
    # Independent draws agree about half of the utterances.
    agreeing = sum(a == b for a, b in zip(one, other, strict=True))
    assert 60 < agreeing < 140


def test_rows_that_seeding_looks_at_are_a_share_of_each_utterance() -> None:
    assert initialization_rows(0, "u", 7, 1.0).tolist() == list(range(7))
    counts = [len(initialization_rows(0, f"u{i}", 10, 0.25)) for i in range(400)]
    assert set(counts) <= {2, 3}
    assert sum(counts) == pytest.approx(1000, rel=0.1)
