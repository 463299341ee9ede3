"""Readers and sizes of parts that follow from what a stage has measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.runtime import TaskResult
from gmp_atl_dist.stages import feeding
from gmp_atl_dist.stages.feeding import FeedRates, fed, remember
from gmp_atl_dist.tags import Tags

GPUS = StreamWorkersConfig(workers=4, gpus=1)
EXTRACT = Tags("run", "extract", "fold1")


@pytest.fixture(autouse=True)
def nothing_measured() -> Iterator[None]:
    feeding.forget()
    yield
    feeding.forget()


def rates(read_s: float, compute_s: float, wait_s: float, parts: int = 20) -> FeedRates:
    """Of two workers that take the parts in turn."""
    found = FeedRates()
    for i in range(parts):
        done = i // 2 + 1
        found.add(
            TaskResult(
                f"part-{i}",
                "[]",
                f"worker {i % 2}",
                done * compute_s,
                done * (compute_s + wait_s),
                read_s,
            )
        )
    return found


def test_what_is_measured_is_of_a_part() -> None:
    found = rates(0.3, 0.2, 0.05)
    assert found.read_s == pytest.approx(0.3)
    assert found.compute_s == pytest.approx(0.2)
    assert found.wait_s == pytest.approx(0.05)


def test_readers_follow_from_the_last_stage_of_the_kind() -> None:
    """4 workers x 0.3 s of reading / 0.2 s of computing, and a quarter more: 7.5."""
    assert fed(GPUS, EXTRACT).readers is None
    remember(GPUS, EXTRACT, rates(0.3, 0.2, 0.05))
    assert fed(GPUS, Tags("run", "extract2", "fold5")).readers == 8
    assert fed(GPUS, Tags("run", "mfcc", "fold1")).readers is None
    assert fed(StreamWorkersConfig(workers=4), EXTRACT).readers is None
    configured = GPUS.model_copy(update={"readers": 3})
    assert fed(configured, EXTRACT).readers == 3
    remember(GPUS, EXTRACT, rates(0.01, 0.2, 0.0))
    assert fed(GPUS, EXTRACT).readers == 1


def test_too_few_parts_say_nothing() -> None:
    remember(GPUS, EXTRACT, rates(0.3, 0.2, 0.5, parts=9))
    assert fed(GPUS, EXTRACT).readers is None
    assert rates(0.3, 0.2, 0.5, parts=9).advice("extract", GPUS, 30_000) is None
    assert FeedRates().advice("extract", GPUS, 30_000) is None


def test_a_line_says_what_would_wait_less() -> None:
    """0.05 s of waiting for 0.2 s of work is a tenth where parts are 2.25 times as large."""
    line = rates(0.1, 0.2, 0.05).advice("extract fold1", GPUS, 30_000)
    assert line == (
        "extract fold1: of each part a worker computed 0.2 s and waited 0.05 s, a reader took 0.1 s; "
        "extract.part_frames = 68000 would leave 10 % of waiting (other parts: the features are computed "
        "again)"
    )
    assert rates(0.1, 0.2, 0.02).advice("extract", GPUS, 30_000) is None
    slow = rates(1.0, 0.2, 0.5)
    assert str(slow.advice("extract", GPUS, 30_000)).endswith("; the next one has readers = 25")
    few = GPUS.model_copy(update={"readers": 2})
    said = str(slow.advice("extract", few, 30_000))
    assert said.endswith("; set runtime.extract.readers = 25")
