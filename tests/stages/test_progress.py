"""How far a stage is, in numbers and words."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.runtime import Task, TaskResult, count_result
from gmp_atl_dist.runtime.metrics import Clock, TaskCounts
from gmp_atl_dist.stages.progress import Pace, PartsProgress
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.progress import (
    ProgressFile,
    ProgressSnapshot,
    forget_progress,
    read_progress,
)
from gmp_atl_dist.store.writer import ArtifactWriter

KEY = ArtifactKey("extract", "f" * 64)


class FakeClock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def result(
    name: str, audio_s: float = 0.0, rows: int = 0, busy_s: float = 1.0, alive_s: float = 2.0
) -> TaskResult:
    """Of a task with a part a layer, whose worker shares the audio out among them."""
    receipts = [{"name": f"{name}-{i}", "rows": rows, "audio_s": audio_s / 2} for i in (1, 2)]
    return TaskResult(name, json.dumps(receipts), f"worker {name}", busy_s, alive_s)


def test_one_line_says_it_all(clock: FakeClock) -> None:
    tasks = [Task(f"t{i}", cost=2.0) for i in range(10)]
    # Two tasks and 20 min of audio were done before this run.
    progress = PartsProgress(tasks, tasks[2:], 1200.0, clock)
    assert progress.snapshot().describe() == "2/10 parts, 0.33 h of 1.67 h"
    clock.now_s += 20
    progress.add(result("t2", audio_s=600, rows=500, busy_s=9.7, alive_s=10))
    progress.add(result("t3", audio_s=600, rows=200, busy_s=9.7, alive_s=10))

    assert progress.snapshot().describe() == (
        "4/10 parts, ends in 00:01:00, 0.67 h of 1.67 h, 60.0 h/h, 35.0 utt/s, busy 97 %"
    )


def test_what_has_no_audio_has_no_rates(clock: FakeClock) -> None:
    tasks = [Task("a"), Task("b", cost=3.0)]
    progress = PartsProgress(tasks, tasks, 0.0, clock)
    assert progress.snapshot().describe() == "0/2 parts"
    clock.now_s += 10
    progress.add(result("a", rows=7))
    assert progress.snapshot().describe() == "1/2 parts, ends in 00:00:30, busy 50 %"
    progress.add(result("b"))
    assert progress.snapshot().describe() == "2/2 parts, busy 50 %"


def test_the_latest_word_of_each_worker_counts(clock: FakeClock) -> None:
    tasks = [Task(name) for name in "abc"]
    progress = PartsProgress(tasks, tasks, 0.0, clock)
    for name, worker, busy_s, alive_s in [("a", "w", 8.0, 10.0), ("b", "w", 1.0, 5.0)]:
        progress.add(TaskResult(name, "[]", worker, busy_s, alive_s))
    assert progress.snapshot().busy_share == pytest.approx(0.8)
    progress.add(TaskResult("c", "[]", "another", 2.0, 10.0))
    assert progress.snapshot().busy_share == pytest.approx(0.5)


seconds = st.floats(0, 1e6)
# Of frames or parts: none, or enough that a share of it is a number.
costs = st.just(0.0) | st.floats(1e-3, 1e6)


@given(
    st.lists(st.tuples(costs, st.integers(0, 1000), seconds), min_size=1, max_size=20),
    st.data(),
)
def test_whatever_comes_it_ends_with_all_done(
    work: list[tuple[float, int, float]], data: st.DataObject
) -> None:
    clock = FakeClock()
    tasks = [Task(f"t{i}", cost=cost) for i, (cost, _, _) in enumerate(work)]
    before = data.draw(st.integers(0, len(tasks)))
    progress = PartsProgress(tasks, tasks[before:], sum(w[2] for w in work[:before]), clock)
    for task, (_, rows, audio_s) in zip(tasks[before:], work[before:], strict=True):
        clock.now_s += data.draw(seconds)
        progress.add(result(task.name, audio_s, rows))
        now = progress.snapshot()
        assert 0 <= now.done <= now.total == len(tasks)
        assert now.ends_in_s is None or now.ends_in_s >= 0
        assert ProgressSnapshot.model_validate_json(now.model_dump_json()) == now
        assert now.describe().startswith(f"{now.done}/{now.total} parts")
    end = progress.snapshot()
    assert (end.done, end.ends_in_s) == (len(tasks), None)
    assert end.audio_s == pytest.approx(sum(w[2] for w in work))
    if end.total_audio_s is not None:
        assert end.total_audio_s == pytest.approx(end.audio_s)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0.1, 1e6))
def test_an_even_pace_ends_when_it_says(done: int, more: int, elapsed_s: float) -> None:
    clock = FakeClock()
    pace, total = Pace(done, clock), done + 2 * more
    assert pace.ends_in_s(done, total) is None
    clock.now_s += elapsed_s
    expected = None if more == 0 else pytest.approx(elapsed_s)
    assert pace.ends_in_s(done + more, total) == expected
    assert pace.ends_in_s(total, total) is None


def test_a_training_says_what_it_measures() -> None:
    metrics = {"accuracy_with_margin": 0.2, "loss": 1.25, "accuracy": 0.5, "selection_uar": 0.4}
    snapshot = ProgressSnapshot(done=30, total=90, metrics=metrics)
    words = "30/90 updates, accuracy 50 %, selection_uar 0.4, loss 1.25"
    assert snapshot.describe() == words, "the margin would only contradict the accuracy"
    snapshot = ProgressSnapshot(done=30, total=90, metrics=metrics | {"chance": 0.25, "x": 2})
    assert snapshot.describe() == words.replace("50 %", "50 % (chance 25 %)") + ", x 2"


@pytest.mark.parametrize(
    ("age_s", "words"),
    [
        (59, "3/9 updates"),
        (185, "3/9 updates, last seen 3 min ago"),
        (7100, "3/9 updates, last seen 118 min ago"),
        (3 * 3600, "3/9 updates, last seen 3 h ago"),
        (50 * 3600, "3/9 updates, last seen 2 d ago"),
    ],
)
def test_what_was_long_ago_is_told(age_s: float, words: str) -> None:
    assert ProgressSnapshot(done=3, total=9, written_s=5000.0).describe(5000.0 + age_s) == words
    assert ProgressSnapshot(done=3, total=9, written_s=5000.0).describe() == "3/9 updates"


def test_a_file_is_left_now_and_then_and_goes(tmp_path: Path, clock: FakeClock) -> None:
    store = Store.open(str(tmp_path))
    file = ProgressFile(store, KEY, clock)
    assert read_progress(store, KEY) is None

    def left() -> int:
        seen = read_progress(store, KEY)
        assert seen is not None
        return seen.done

    file.write(ProgressSnapshot(done=1, total=9, unit="parts", audio_s=2.5))
    assert left() == 1
    clock.now_s += 4.9
    file.write(ProgressSnapshot(done=2, total=9))
    assert left() == 1
    clock.now_s += 0.2
    file.write(ProgressSnapshot(done=3, total=9))
    assert left() == 3

    path = tmp_path / KEY.prefix / "_progress.json"
    os.utime(path, (5000, 5000))
    seen = read_progress(store, KEY)
    assert seen is not None
    assert seen.written_s == 5000
    assert ArtifactWriter(store, KEY).done() == {}, "it is no part of the artefact"
    path.write_bytes(b'{"done": 1, "tot')
    assert read_progress(store, KEY) is None
    forget_progress(store, KEY)
    forget_progress(store, KEY)
    assert not path.exists()


def test_who_reads_the_file_knows_when_it_was_written(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    ProgressFile(store, KEY).write(ProgressSnapshot(done=1, total=9))
    seen = read_progress(store, KEY)
    assert seen is not None
    assert seen.describe(time.time()) == "1/9 updates"
    assert "last seen 2 min ago" in seen.describe(time.time() + 125)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", TaskCounts()),
        ('[{"rows": 3, "audio_s": 0}]', TaskCounts()),
        ('[{"rows": 3, "audio_s": 1.5}, {"rows": 3, "audio_s": 1.5}]', TaskCounts(3, 3.0)),
        ('[{"rows": 3}]', TaskCounts()),
        ('["x"]', TaskCounts()),
        ('{"rows": 3}', TaskCounts()),
        ("3", TaskCounts()),
        ("null", TaskCounts()),
        ("no JSON", TaskCounts()),
        ('[{"rows": "many", "audio_s": 1}]', TaskCounts()),
    ],
)
def test_what_a_result_amounts_to(text: str, expected: TaskCounts) -> None:
    assert count_result(text) == expected


def test_a_worker_is_as_busy_as_its_clock_says(clock: FakeClock) -> None:
    worker = Clock(clock)
    clock.now_s += 100  # waits for its first task, which is not counted
    assert (worker.busy_s, worker.alive_s) == (0, 0)
    with worker:
        clock.now_s += 3
        assert (worker.busy_s, worker.alive_s) == (3, 3), "what it is at counts as well"
    clock.now_s += 1
    with worker:
        clock.now_s += 2
    assert (worker.busy_s, worker.alive_s) == (5, 6)


def test_work_that_overlaps_counts_once(clock: FakeClock) -> None:
    """A GPU works on one part while the next one is started."""
    worker = Clock(clock)
    with worker:
        clock.now_s += 2
        with worker:
            clock.now_s += 3
        clock.now_s += 1
        assert (worker.busy_s, worker.alive_s) == (6, 6)
    clock.now_s += 4
    with worker:
        clock.now_s += 1
    assert (worker.busy_s, worker.alive_s) == (7, 11)
