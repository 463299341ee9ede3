"""Lanes: which stage runs when, by what the cluster has room for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gmp_atl_dist import stopping
from gmp_atl_dist.errors import CorpusError, StoppedError
from gmp_atl_dist.ray_api.facts import ClusterFacts, Node, NodeGroup
from gmp_atl_dist.scheduling.demands import Demand
from gmp_atl_dist.scheduling.lanes import Lane, Lanes, NotRunError
from gmp_atl_dist.scheduling.room import Grant, Offers, Room, with_autoscaler
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.sweeps.planning import PlannedStage, SweepPlan

ONE = Demand("runtime.extract", 1, 1, 1.0, 0.0)
GANG = Demand("runtime.train", 4, 4, 1.0, 0.0, together=True)
WAIT_S = 20.0


def made(name: str) -> Artifact:
    """What a stage of a test makes; nothing looks into it."""
    return Artifact(Store.open("."), ArtifactKey("x", name), None)  # pyright: ignore[reportArgumentType]


class Log:
    """Which stages ran, which at the same time, and in which order they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.workers: dict[str, tuple[int, ...] | None] = {}
        self.most, self._now = 0, 0
        self._lock = threading.Lock()

    @contextmanager
    def runs(self, name: str, grant: Grant | None) -> Iterator[None]:
        with self._lock:
            self.begun.append(name)
            self.workers[name] = None if grant is None else grant.workers
            self._now += 1
            self.most = max(self.most, self._now)
        yield
        with self._lock:
            self._now -= 1


def lane(
    lanes: Lanes,
    log: Log,
    name: str,
    stages: dict[str, Demand],
    *,
    fails: Callable[[str], bool] = lambda _: False,
    takes_s: float = 0.02,
    alone_with: str = "",
) -> Lane:
    """A walk over ``stages``; those of the same name are shared."""

    def walk(this: Lane) -> None:
        for stage, demand in stages.items():

            def work(grant: Grant | None, stage: str = stage) -> Artifact:
                with log.runs(stage, grant):
                    time.sleep(takes_s)
                if fails(stage):
                    raise CorpusError(f"{stage} is broken")
                return made(stage)

            def make(demand: Demand = demand, work: Callable[..., Artifact] = work) -> Artifact:
                return lanes.with_room(this, (demand,), work, alone_with=alone_with)

            lanes.once(this, ArtifactKey("x", stage), stage, make)

    return Lane(name, walk)


def nodes(*cpus: float) -> Callable[[], Offers]:
    return lambda: [{"CPU": c} for c in cpus]


def run(lanes: Lanes, *every: Lane) -> None:
    lanes.run(every)
    assert all(lane.state == "over" for lane in every)


def own(name: str, demand: Demand = ONE, count: int = 3) -> dict[str, Demand]:
    return {f"{name}{i}": demand for i in range(count)}


@pytest.mark.parametrize("offers", [lambda: None, nodes(1)])
def test_with_room_for_one_stage_the_order_is_that_of_lanes(offers: Callable[[], Offers]) -> None:
    lanes, log = Lanes(lambda: None, offers), Log()
    run(lanes, *(lane(lanes, log, name, own(name)) for name in "abc"))
    assert log.begun == [f"{name}{i}" for name in "abc" for i in range(3)]
    assert log.most == 1


def test_as_many_run_at_once_as_there_is_room_for() -> None:
    lanes, log = Lanes(lambda: None, nodes(2, 1)), Log()
    run(lanes, *(lane(lanes, log, name, own(name), takes_s=0.2) for name in "abcdef"))
    assert log.most == 3
    assert len(log.begun) == 18


def test_a_stage_of_several_lanes_runs_once() -> None:
    lanes, log = Lanes(lambda: None, nodes(8)), Log()
    run(lanes, *(lane(lanes, log, name, {"shared": ONE, name: ONE}) for name in "abcd"))
    assert sorted(log.begun) == ["a", "b", "c", "d", "shared"]
    assert log.begun[0] == "shared"


def test_a_failed_stage_fails_those_that_need_it_and_names_it_once() -> None:
    lanes, log = Lanes(lambda: None, nodes(8)), Log()
    bad = [
        lane(lanes, log, name, {"shared": ONE, name: ONE}, fails=lambda s: s == "shared")
        for name in "ab"
    ]
    good = lane(lanes, log, "c", {"c": ONE})
    report = Lane("report", lambda _: pytest.fail("its lanes failed"), after=(*bad, good))
    run(lanes, *bad, good, report)
    # Whichever thread reaches the shared stage first runs it.
    ran, waited = sorted(bad, key=lambda one: isinstance(one.error, NotRunError))
    assert isinstance(ran.error, CorpusError)
    assert isinstance(waited.error, NotRunError)
    assert f"shared failed in {ran.name}" in str(waited.error)
    assert good.error is None
    assert "a is not done" in str(report.error)
    assert sorted(log.begun) == ["c", "shared"]


def test_fail_fast_starts_nothing_more_and_ends_what_runs() -> None:
    lanes, log = Lanes(lambda: None, nodes(2), fail_fast=True), Log()
    bad = lane(lanes, log, "a", own("a"), fails=lambda s: s == "a0")
    slow = lane(lanes, log, "b", own("b"), takes_s=0.5)
    never = lane(lanes, log, "c", own("c"))
    run(lanes, bad, slow, never)
    assert sorted(log.begun) == ["a0", "b0"]
    assert isinstance(bad.error, CorpusError)
    assert isinstance(slow.error, NotRunError)
    assert isinstance(never.error, NotRunError)


def test_a_gang_is_placed_whole_and_is_not_overtaken_for_ever() -> None:
    """Two gangs of 4 on 6 cores never hold 3 each; small stages behind them do not starve them."""
    lanes, log = Lanes(lambda: None, nodes(3, 3)), Log()
    small = [lane(lanes, log, name, own(name, count=6), takes_s=0.05) for name in "xyz"]
    gangs = [lane(lanes, log, name, {name: GANG}, takes_s=0.1) for name in "gh"]
    run(lanes, *gangs, *small)
    assert log.begun.index("g") < 3
    assert log.begun.index("h") < len(log.begun) - 6, "it waited for all of the small ones"
    assert log.workers["g"] == log.workers["h"] == (4,)


def test_what_an_elastic_gang_gets_is_what_is_left() -> None:
    elastic = Demand("runtime.train", 1, 8, 1.0, 0.0, together=True)
    lanes, log = Lanes(lambda: None, nodes(6)), Log()
    # Both begin at the same time, so that neither takes what the other needs at least.
    run(lanes, *(lane(lanes, log, name, {name: elastic}, takes_s=0.2) for name in "ab"))
    assert sorted(log.workers.values(), key=str) == [(1,), (5,)]
    assert log.most == 2


def test_a_stage_that_no_empty_cluster_could_hold_is_left_to_ray() -> None:
    lanes, log = Lanes(lambda: None, nodes(2)), Log()
    run(lanes, lane(lanes, log, "a", {"a": GANG}))
    assert log.workers == {"a": None}


def test_a_pool_that_is_larger_than_the_cluster_gets_all_of_it() -> None:
    pool = Demand("runtime.extract", 8, 8, 1.0, 0.0)
    lanes, log = Lanes(lambda: None, nodes(2, 1)), Log()
    run(lanes, *(lane(lanes, log, name, {name: pool}) for name in "ab"))
    assert log.workers == {"a": (3,), "b": (3,)}
    assert log.most == 1


def test_stages_that_exclude_each_other_do_not_run_at_once() -> None:
    lanes, log = Lanes(lambda: None, nodes(8)), Log()
    run(lanes, *(lane(lanes, log, n, own(n), takes_s=0.1, alone_with="features") for n in "abc"))
    assert log.most == 1


def test_ray_is_opened_once_and_only_if_a_stage_has_workers() -> None:
    opened: list[threading.Thread] = []
    lanes, log = Lanes(lambda: opened.append(threading.current_thread()), nodes(2)), Log()
    run(lanes, Lane("found", lambda _: None))
    assert opened == []
    run(lanes, *(lane(lanes, log, name, own(name)) for name in "ab"))
    assert opened == [threading.main_thread()]


def test_a_defect_of_ours_ends_its_lane_alone() -> None:
    lanes, log = Lanes(lambda: None, nodes(8)), Log()

    def broken(_: Lane) -> None:
        raise ZeroDivisionError("a defect")

    bad = Lane("bad", broken)
    run(lanes, bad, lane(lanes, log, "a", own("a")))
    assert isinstance(bad.error, ZeroDivisionError)
    assert len(log.begun) == 3


def test_an_autoscaler_adds_up_to_its_limits() -> None:
    node = Node(name="a", cpus=4, gpus=0, resources={})
    gpu = NodeGroup(name="b", cpus=8, gpus=1, resources={"spot": 1}, most=3)
    endless = NodeGroup(name="c", cpus=2, gpus=0, resources={}, most=None)
    facts = ClusterFacts(ray_version="", python_version="", nodes=(node,), groups=(gpu, endless))
    offers = with_autoscaler(facts, of_use=5)
    assert offers[0] == {"CPU": 4, "GPU": 0}
    assert [offer for offer in offers if offer["GPU"]] == 3 * [{"CPU": 8, "GPU": 1, "spot": 1}]
    assert offers.count({"CPU": 2, "GPU": 0}) == 5
    keys = [ArtifactKey("finetune", f"{i}" * 64) for i in range(6)]
    stages = [PlannedStage(key, "finetune", "run", False, (ONE,), (), 10.0) for key in keys]
    plan = SweepPlan(tuple(stages), 6)
    four = [{"CPU": 4.0}]
    assert plan.most_workers == 6 * ONE.fewest
    assert plan.wall_s(offers) == 10
    assert plan.wall_s(four) == 20


def test_room_counts_gpus_and_named_resources() -> None:
    each = Demand("runtime.train", 1, 9, 2.0, 1.0, resources={"gang": 0.5})
    room = Room(
        [{"CPU": 8, "GPU": 2, "gang": 1}, {"CPU": 8, "GPU": 4}, {"CPU": 3, "GPU": 4, "gang": 4}]
    )
    assert room.take(each, 9) == 3
    assert room.take(each, 9) == 0


def test_at_a_stop_trainings_save_other_stages_end_and_nothing_starts() -> None:
    lanes, log = Lanes(lambda: None, nodes(2)), Log()

    def saves() -> Artifact:
        while (signum := stopping.requested()) is None:
            time.sleep(0.01)
        time.sleep(0.3)
        raise stopping.stopped(signum, "finetune fold1: saved a checkpoint after update 7 of 9")

    def checks() -> Artifact:
        for _ in range(2000):
            time.sleep(0.01)
            stopping.check()
        raise AssertionError("no stop reached this thread")

    def walk_of(work: Callable[[], Artifact], name: str, saving: bool) -> Callable[[Lane], None]:
        def make(lane: Lane) -> Artifact:
            return lanes.with_room(lane, (ONE,), lambda _: work(), saves=saving)

        return lambda lane: void(lanes.once(lane, ArtifactKey("x", name), name, lambda: make(lane)))

    training = Lane("a", walk_of(saves, "a", True))
    mapped = Lane("b", walk_of(checks, "b", False))
    waits = lane(lanes, log, "c", own("c"))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with stopping.stoppable(lambda _: None), pytest.raises(StoppedError) as caught:
        lanes.run([training, mapped, waits])
    assert caught.value.exit_code == 130
    assert "saved a checkpoint after update 7 of 9; finished stages and parts are kept" in str(
        caught.value
    )
    assert isinstance(mapped.error, KeyboardInterrupt)
    assert isinstance(waits.error, NotRunError)
    assert log.begun == []


def void(_: object) -> None: ...
