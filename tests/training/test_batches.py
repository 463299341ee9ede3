"""Batches are a function of data, seed and update alone, whoever loads them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.one_process import FOLD, Tiny

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, num_frames
from gmp_atl_dist.seeding import keyed_rng, keyed_seed
from gmp_atl_dist.store.index import IndexRow, Utterances
from gmp_atl_dist.store.readers import AudioReader, InPart
from gmp_atl_dist.training import batch_plan
from gmp_atl_dist.training.batch_plan import BatchPlan
from gmp_atl_dist.training.batches import Batch, BatchLoader, max_crop_samples

pytest_plugins = ["support.one_process"]

counts = st.integers(1, 60)
sizes_s = st.floats(0.05, 4.0)
seeds = st.integers(0, 2**31)


class Ramps(AudioReader):
    """Sample n of every utterance is n, so that a crop tells where it was cut."""

    def __init__(self) -> None:
        pass

    def samples(self, utterance: InPart) -> np.ndarray:
        return np.arange(utterance.num_samples, dtype="<i2")


def some(count: int, parts: int = 3) -> tuple[IndexRow, ...]:
    rng = np.random.default_rng(count)
    return tuple(
        IndexRow(
            utterance_id=f"u{i:03d}",
            speaker="s",
            gender="female",
            emotion="sad",
            part=f"part-{i % parts}",
            num_samples=int(rng.integers(400, 12_000)),
            row=i // parts,
        )
        for i in range(count)
    )


def plan_of(
    utterances: tuple[IndexRow, ...],
    batch_s: float = 2.0,
    seed: int = 0,
    max_samples: int = 16_000,
) -> BatchPlan:
    names = sorted({u.part for u in utterances})
    return BatchPlan(
        np.array([u.num_samples for u in utterances]),
        np.array([names.index(u.part) for u in utterances]),
        batch_s=batch_s,
        max_samples=max_samples,
        seed=seed,
    )


def loader(
    utterances: tuple[IndexRow, ...],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_s: float = 1.6,
    micro_batches: int = 1,
    max_samples: int = 4_000,
    seed: int = 0,
) -> BatchLoader:
    return BatchLoader(
        plan_of(utterances, batch_s, seed, max_samples),
        lambda numbers: tuple(utterances[i] for i in numbers),
        Ramps(),
        rank=rank,
        world_size=world_size,
        micro_batches=micro_batches,
        max_samples=max_samples,
        seed=seed,
    )


def counted(loaded: list[Batch]) -> list[tuple[str, int, tuple[float, ...]]]:
    """(id, first frame, samples) of every row that counts, by id."""
    return sorted(
        (u.utterance_id, first, tuple(wave_N[:n].tolist()))
        for batch in loaded
        for u, first, wave_N, n, weight in zip(
            batch.utterances,
            batch.first_frames,
            batch.wave_BN,
            batch.num_samples_B.tolist(),
            batch.weight_B.tolist(),
            strict=True,
        )
        if weight
    )


@given(n=counts, batch_s=sizes_s, parts=st.integers(1, 6), window_s=st.floats(0.1, 20), seed=seeds)
def test_an_epoch_has_every_utterance_once_in_batches_of_equal_audio(
    n: int, batch_s: float, parts: int, window_s: float, seed: int
) -> None:
    utterances = some(n, parts)
    lengths = np.array([u.num_samples for u in utterances])
    with mock.patch.object(batch_plan, "WINDOW_S", window_s):
        plan = plan_of(utterances, batch_s, seed)
        mean = lengths.sum() / plan.batches_per_epoch
        assert plan.batches_per_epoch == 1 or mean >= batch_s * 16_000
        for epoch in range(2):
            first = epoch * plan.batches_per_epoch
            found = [plan.batch(first + i) for i in range(plan.batches_per_epoch)]
            assert Counter(i for b in found for i in b.tolist()) == dict.fromkeys(range(n), 1)
            for batch in found:
                assert len(batch), "none is empty"
                assert abs(lengths[batch].sum() - mean) <= lengths.max()


@given(n=counts, count=st.integers(1, 9), seed=seeds)
def test_micro_batches_are_the_batch_cut_at_equal_audio(n: int, count: int, seed: int) -> None:
    utterances = some(n)
    lengths = np.array([u.num_samples for u in utterances])
    plan = plan_of(utterances, seed=seed)
    cut = plan.micro_batches(0, count)

    assert len(cut) == count
    assert np.concatenate(cut).tolist() == plan.batch(0).tolist()
    share = lengths[plan.batch(0)].sum() / count
    assert all(abs(lengths[c].sum() - share) <= lengths.max() for c in cut)


def test_what_is_cropped_counts_as_it_is_heard() -> None:
    utterances = some(40)
    whole, cropped = plan_of(utterances, 1.0), plan_of(utterances, 1.0, max_samples=800)
    assert whole.batches_per_epoch > 4 * cropped.batches_per_epoch


@given(n=counts, batch_s=sizes_s, seed=seeds, step=st.integers(0, 200))
def test_a_batch_depends_on_seed_and_update_alone(
    n: int, batch_s: float, seed: int, step: int
) -> None:
    utterances = some(n)
    walked = plan_of(utterances, batch_s, seed)
    for i in range(step):
        walked.batch(i)

    expected = walked.batch(step).tolist()
    assert plan_of(utterances, batch_s, seed).batch(step).tolist() == expected


def test_epochs_and_seeds_differ() -> None:
    utterances = some(50)
    plan, other = plan_of(utterances, 2.0, 0), plan_of(utterances, 2.0, 1)
    n = plan.batches_per_epoch
    assert n > 5
    epochs = [[plan.batch(e * n + i).tolist() for i in range(n)] for e in range(3)]

    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [other.batch(i).tolist() for i in range(n)]


def test_a_part_is_read_once_an_epoch() -> None:
    utterances = some(80, parts=8)
    a_part_s = sum(u.num_samples for u in utterances) / 16_000 / 8
    with mock.patch.object(batch_plan, "WINDOW_S", 2 * a_part_s):
        plan = plan_of(utterances, a_part_s / 2)
        steps = range(plan.batches_per_epoch)
        order = [utterances[i].part for step in steps for i in plan.batch(step)]
    for part in {u.part for u in utterances}:
        rows = [i for i, p in enumerate(order) if p == part]
        assert rows[-1] - rows[0] < 40, f"{part} is not read front to back"


def test_an_update_holds_similar_lengths() -> None:
    utterances = some(640)
    plan = plan_of(utterances, 6.0)
    steps = range(plan.batches_per_epoch)
    lengths = [[utterances[i].num_samples for i in plan.batch(step)] for step in steps]
    useful = sum(map(sum, lengths)) / sum(max(b) * len(b) for b in lengths)
    assert useful > 0.85, "of what padding makes of it"


def test_lengths_do_not_tell_the_time() -> None:
    plan = plan_of(some(600), 2.0)
    sizes = [len(plan.batch(step)) for step in range(plan.batches_per_epoch)]
    assert abs(np.corrcoef(np.arange(len(sizes)), sizes)[0, 1]) < 0.3


def passes(loaded: list[Batch]) -> dict[int, tuple[object, ...]]:
    """All that the forward pass of a micro-batch depends on, by its number."""
    return {
        b.micro: (b.epoch, b.first_frames, b.utterances, b.wave_BN.tolist())
        for b in loaded
        if b.weight_B.any()
    }


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("micro_batches", [1, 4, 5])
def test_forward_passes_do_not_depend_on_the_number_of_ranks(
    world_size: int, micro_batches: int
) -> None:
    utterances = some(21)
    alone = dict(loader(utterances, micro_batches=micro_batches).updates(0, 6))
    assert plan_of(utterances, 1.6, max_samples=4_000).batches_per_epoch == 3
    ranks = [
        loader(utterances, rank=rank, world_size=world_size, micro_batches=micro_batches)
        for rank in range(world_size)
    ]
    shared = [dict(rank.updates(0, 6)) for rank in ranks]

    for step, whole in alone.items():
        together = [b for rank in shared for b in rank[step]]
        assert passes(whole) == passes(together)
        assert counted(whole) == counted(together)
        assert {len(rank[step]) for rank in shared} == {-(-micro_batches // world_size)}


def test_every_utterance_is_seen_once_an_epoch_by_any_number_of_ranks() -> None:
    utterances = some(21)
    for world_size in (1, 2, 4):
        seen = Counter(
            u.utterance_id
            for rank in range(world_size)
            for _, step in loader(
                utterances, rank=rank, world_size=world_size, micro_batches=4
            ).updates(0, 6)
            for b in step
            for u in b.utterances
            if b.weight_B.any()
        )
        assert set(seen.values()) == {2}, "two epochs of three updates"
        assert len(seen) == len(utterances)


def test_micro_batches_hold_similar_lengths() -> None:
    (step,) = [b for _, b in loader(some(64), batch_s=64, micro_batches=4).updates(0, 1)]
    ends = [(min(b.num_samples_B.tolist()), max(b.num_samples_B.tolist())) for b in step]
    assert all(low[1] <= high[0] for low, high in pairwise(ends))


def test_a_rank_without_work_still_has_a_batch() -> None:
    ranks = [loader(some(2), rank=rank, world_size=4, micro_batches=4) for rank in range(4)]
    found = [batches for rank in ranks for _, batches in rank.updates(0, 1)]
    assert [len(batches) for batches in found] == [1, 1, 1, 1]
    assert sorted(float(batches[0].weight_B.sum()) for batches in found) == [0.0, 0.0, 1.0, 1.0]


@given(n=st.integers(1, 12), max_samples=st.integers(400, 6_000), seed=seeds)
def test_crops_begin_on_a_frame_and_stay_inside(n: int, max_samples: int, seed: int) -> None:
    utterances = some(n)
    made = loader(utterances, batch_s=0.5, max_samples=max_samples, seed=seed)
    for _, (batch,) in made.updates(0, 3):
        for u, first, wave_N, samples in zip(
            batch.utterances,
            batch.first_frames,
            batch.wave_BN,
            batch.num_samples_B.tolist(),
            strict=True,
        ):
            assert samples == min(u.num_samples, max_samples)
            assert round(float(wave_N[0]) * 32768) == first * FRAME_HOP_SAMPLES
            assert first + num_frames(samples) <= num_frames(u.num_samples)


def test_crops_move_between_epochs() -> None:
    utterances = some(1)
    firsts = {
        batch.first_frames[0]
        for _, (batch,) in loader(utterances, batch_s=1, max_samples=400).updates(0, 30)
    }
    assert len(firsts) > 5


def test_updates_can_begin_anywhere() -> None:
    utterances = some(21)
    walked = dict(loader(utterances).updates(0, 9))
    jumped = dict(loader(utterances).updates(5, 9))

    assert list(jumped) == [5, 6, 7, 8]
    assert all(counted(jumped[step]) == counted(walked[step]) for step in jumped)
    assert list(loader(utterances).updates(4, 4)) == []


def test_whole_utterances_are_not_cropped() -> None:
    utterances = some(5)
    batch = loader(utterances, max_samples=400).validation_batch(utterances)

    assert batch.num_samples_B.tolist() == [u.num_samples for u in utterances]
    assert batch.first_frames == (0,) * 5
    assert batch.weight_B.tolist() == [1.0] * 5


def test_real_audio_arrives(tiny: Tiny) -> None:
    from gmp_atl_dist.audio import decode_pcm16, pcm16_to_float

    utterances = Utterances(tiny.corpus, FOLD.train_speakers)
    # As of any sequence: nothing is nothing, and not an error.
    assert utterances[1:1] == utterances.rows([]) == ()
    made = BatchLoader(
        BatchPlan(
            utterances.num_samples,
            utterances.part_numbers,
            batch_s=2.0,
            max_samples=max_crop_samples(10.0),
            seed=0,
        ),
        utterances.rows,
        AudioReader(tiny.corpus, cache_bytes=1),
        rank=0,
        world_size=1,
        micro_batches=1,
        max_samples=max_crop_samples(10.0),
        seed=0,
    )
    wavs = {p.stem: p for p in tiny.folder.rglob("*.wav")}
    for _, (batch,) in made.updates(0, 3):
        for u, wave_N, n in zip(
            batch.utterances, batch.wave_BN, batch.num_samples_B.tolist(), strict=True
        ):
            expected = pcm16_to_float(decode_pcm16(wavs[u.utterance_id].read_bytes()))
            np.testing.assert_array_equal(wave_N[:n].numpy(), expected)
            assert not wave_N[n:].any()


def test_random_numbers_follow_their_key() -> None:
    assert keyed_seed("order", 0, 1) == 7118692496828047457
    assert keyed_rng("mask", 1, "u").random() == keyed_rng("mask", 1, "u").random()
    # A key is its items, not their joined text.
    keys = [("a", "bc"), ("ab", "c"), ("a", "b", "c"), ("a", 1), ("a", 11)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= keyed_seed(i) < 2**63 for i in range(100))
