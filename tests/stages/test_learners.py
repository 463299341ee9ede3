"""Plans: even, from the data alone, and every utterance once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.one_process import FOLD, Tiny, ingest
from support.plans import plan_of

from gmp_atl_dist.clustering.sample import UtteranceSample
from gmp_atl_dist.config import ClusterConfig, FoldsConfig, LabelConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.errors import ArtifactError, CorpusError
from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.label_plan import plan_labels
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.index import one_of_each_group
from gmp_atl_dist.store.readers import AudioReader, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet

pytest_plugins = ["support.one_process"]


def index_of(frames: list[int], parts: list[str], rows: list[int]) -> pa.Table:
    return pa.table(
        {
            "utterance_id": [f"u{i:05d}" for i in range(len(frames))],
            "num_frames": pa.array(frames, type=pa.int64()),
            "part": pa.array(parts).dictionary_encode(),
            "row": pa.array(rows, type=pa.int64()),
        }
    )


@given(
    frames=st.lists(st.integers(1, 500), min_size=1, max_size=200),
    part_frames=st.integers(1, 5000),
    a_part=st.integers(1, 30),
    keep=st.lists(st.booleans(), min_size=200, max_size=200),
)
def test_plans_hold_every_utterance_once_and_are_even(
    frames: list[int], part_frames: int, a_part: int, keep: list[bool]
) -> None:
    stored = [(i, f"p{i // a_part}", i % a_part) for i in range(len(frames)) if keep[i]]
    if not stored:
        return
    kept = [frames[i] for i, _, _ in stored]
    tasks = plan_parts(
        index_of(kept, [p for _, p, _ in stored], [r for _, _, r in stored]), part_frames
    )

    assert len({task.name for task in tasks}) == len(tasks)
    covered = [
        (part, row)
        for task in tasks
        for part, start, stop in json.loads(task.payload)
        for row in range(start, stop)
    ]
    assert len(set(covered)) == len(covered)
    assert {(p, r) for _, p, r in stored} <= set(covered)
    assert sum(task.cost for task in tasks) == sum(kept)
    even = sum(kept) / max(1, round(sum(kept) / part_frames))
    for task in tasks:
        assert task.cost <= even + max(kept)


def test_a_hundred_thousand_utterances_are_planned_at_once() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(50, 400, 100_000)
    parts = np.arange(100_000) // 120
    tasks = plan_parts(
        index_of(
            frames.tolist(), [f"part-{p:05d}" for p in parts], (np.arange(100_000) % 120).tolist()
        ),
        30_000,
    )
    costs = np.array([task.cost for task in tasks])
    assert abs(costs / 30_000 - 1).max() < 0.02


def test_tests_speakers_are_not_read(tiny: Tiny) -> None:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    utterances = {u.utterance_id: u for u in read_utterances(tiny.corpus)}
    audio = AudioReader(tiny.corpus)
    read = AudioSlices(AudioSelection(training))
    found: list[str] = []
    for task in plan_parts(frame_index(training), 200):
        table = read(task)
        for row in table.to_pylist():
            u = utterances[row["utterance_id"]]
            assert u.speaker in FOLD.train_speakers
            assert row["pcm16"] == audio.samples(u).tobytes()
            assert (row["gender"], row["num_samples"]) == (u.gender, u.num_samples)
            found.append(u.utterance_id)
    assert found == [u.utterance_id for u in FOLD.select(utterances.values(), "train")]
    assert (
        len(
            frame_index(
                TrainingSet(tiny.corpus, FOLD.transductive_speakers()),
            )
        )
        == 40
    )


def test_a_sample_is_the_same_for_planner_and_reader(tiny: Tiny) -> None:
    training = TrainingSet(tiny.corpus, FOLD.transductive_speakers())
    sample = UtteranceSample(0.5, 3)
    planned = frame_index(training, sample)["utterance_id"].to_pylist()
    read = AudioSlices(AudioSelection(training, sample))
    found = [
        i
        for task in plan_parts(frame_index(training, sample), 100)
        for i in read(task)["utterance_id"].to_pylist()
    ]
    assert (
        found
        == planned
        == [i for i in frame_index(training)["utterance_id"].to_pylist() if sample.holds(i)]
    )
    assert 8 < len(found) < 32


def test_a_sample_of_nothing_is_refused(tiny: Tiny) -> None:
    with pytest.raises(CorpusError, match=r"fold 'fold1' has no utterance.*sample_frames"):
        frame_index(
            TrainingSet(tiny.corpus, FOLD.transductive_speakers()), UtteranceSample(1e-12, 0)
        )


def test_slices_that_are_not_there_are_named(tiny: Tiny) -> None:
    read = AudioSlices(AudioSelection(TrainingSet(tiny.corpus, FOLD.training_speakers())))
    with pytest.raises(
        ArtifactError, match=r"part-00000.parquet has \d+ of rows 3 to 4000; run gmp-atl verify"
    ):
        read(Task("x", '[["part-00000", 3, 4000]]'))


@pytest.mark.parametrize(
    ("config", "share"), [({}, 1.0), ({"sample_frames": 50, "sample_spread": 2.0}, None)]
)
def test_the_plan_says_what_both_ways_cost(
    tiny: Tiny, config: dict[str, object], share: float | None
) -> None:
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    plan = plan_labels(LabelConfig(), ClusterConfig.model_validate(config), training)
    total = sum(frame_index(training)["num_frames"].to_pylist())
    assert plan.sample.share == (share or 100 / total)
    words = plan.describe(training, 64, 3)
    assert "stored: 1 pass over" in words
    assert words.endswith("this run uses stored")
    assert ("fused: 2 passes" in words) == (share == 1.0)
    assert (
        plan_of(plan.frames, fused=True).describe(training, 64, 3).endswith("this run uses fused")
    )


@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_a_sample_is_about_its_share(seed: int, share: float) -> None:
    sample = UtteranceSample(share, seed)
    held = sum(sample.mask(f"u{i}" for i in range(500)))
    assert abs(held / 500 - share) < 0.13


@pytest.mark.usefixtures("in_process")
def test_folds_from_one_utterance_a_group_are_those_of_all(tiny: Tiny, tmp_path: Path) -> None:
    corpus = ingest(tiny.with_root(tmp_path))
    few, every = one_of_each_group(corpus), read_utterances(corpus)
    assert len(few) < len(every)
    for by in ("session", "speaker"):
        config = FoldsConfig(by=by)
        assert plan_folds(few, config) == plan_folds(every, config)
