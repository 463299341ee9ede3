"""When a sweep is expected to end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.sweeps import write_sweep_files

from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.execution import open_context
from gmp_atl_dist.scheduling.demands import Demand
from gmp_atl_dist.scheduling.lanes import Lane, Lanes
from gmp_atl_dist.scheduling.room import Grant, Offers
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.sweeps.keeping import SweepKeeper
from gmp_atl_dist.sweeps.planning import PlannedStage, SweepPlan

pytest_plugins = ["support.one_process"]

ONE_CORE = Demand("train", 1, 1, cpus=1, gpus=0)
TWO_CORES: Offers = [{"CPU": 2.0, "GPU": 0.0}]


def stages(count: int, seconds: float | None) -> SweepPlan:
    """Stages of one core that do not depend on each other."""
    made = [
        PlannedStage(
            ArtifactKey("retrain", f"{i:064d}"),
            "retrain fold1",
            "r",
            False,
            (ONE_CORE,),
            (),
            seconds,
        )
        for i in range(count)
    ]
    return SweepPlan(tuple(made), count)


@pytest.mark.parametrize(
    ("offers", "at_once"), [(TWO_CORES, 2.0), (2 * TWO_CORES, 4.0), (None, 1.0)]
)
def test_stages_run_side_by_side_as_there_is_room(offers: Offers | None, at_once: float) -> None:
    assert stages(8, 100.0).side_by_side(offers) == at_once
    assert stages(0, None).side_by_side(offers) == 1.0


def test_the_end_is_that_of_the_dry_run_as_soon_as_the_nodes_are_known(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    """It was twice as late until the second stage began: one stage at a time was taken for granted."""
    sweep = load_sweep(
        write_sweep_files(tmp_path, tiny_corpus, '[[arms]]\nname = "plain"\n', seeds=1)
    )
    asked: list[float] = []

    def nodes() -> Offers | None:
        asked.append(time.monotonic())
        return TWO_CORES if opened else None

    opened: list[bool] = []
    lanes = Lanes(lambda: opened.append(True), nodes)
    plan = stages(8, 100.0)
    with open_context(sweep.config, Reporter(terminal=False)) as context:
        keeper = SweepKeeper(sweep, context, [], ("fold1",))
        with keeper:
            assert keeper._now().ends_s is None, "before the plan"
            keeper.planned(plan, lanes)
            assert keeper._now().ends_s is None, "before the nodes are known"
            ends_s: list[float | None] = []

            def work(_: Grant | None) -> Artifact:
                ends_s.append(keeper._now().ends_s)
                return Artifact(context.store, ArtifactKey("x", "0" * 64), None)  # pyright: ignore[reportArgumentType]

            def walk(lane: Lane) -> None:
                lanes.with_room(lane, (ONE_CORE,), work)

            lanes.run([Lane("one", walk)])
    (end_s,) = ends_s
    assert end_s is not None
    assert end_s - time.time() == pytest.approx(plan.wall_s(TWO_CORES), abs=20)
    assert len(asked) == 1, "a Ray that is not open was asked"
