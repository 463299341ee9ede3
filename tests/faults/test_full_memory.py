"""A training on Ray whose pass does not fit into the memory: tried once, told once."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from support.full_memory import Full
from support.local_ray import local_nodes
from support.one_process import Tiny
from support.retrain_case import case

from gmp_atl_dist import runtime
from gmp_atl_dist.config import TrainWorkersConfig
from gmp_atl_dist.training.loop import run_training

pytest_plugins = ["support.one_process"]
pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]


def test_a_gang_does_not_try_the_same_pass_again(tiny: Tiny, tmp_path: Path) -> None:
    made = case(tiny, tmp_path)
    made.recipe.__class__ = Full
    config = TrainWorkersConfig(workers=2, max_failures=3)
    job = made.with_workers(config)
    with local_nodes() as cluster:
        cluster.add_node(num_cpus=2)
        assert ray.is_initialized()
        # Ray starts the gang again, which returns at once.
        runtime.train(run_training, job, name=job.key.fingerprint, store=job.store, config=config)
    assert (tmp_path / "tries").read_text() == "forward\n"
    told = job.checkpoints.failure()
    assert told is not None
    assert told.startswith("retrain: update 0, pass 1 of 1: no memory is left on ")
