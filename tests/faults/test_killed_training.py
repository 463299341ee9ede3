from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_runs import RETRAIN_STEPS, STAGE_S, Interrupted, Reference, finished, started

pytest_plugins = ["pipeline_runs"]
pytestmark = pytest.mark.timeout(1200)

BEFORE_RETRAIN = ("ingest", "backbone", "warmup", "extract", "cluster", "label")


def test_a_killed_driver_goes_on_at_the_checkpoint_to_the_same_bits(
    reference: Reference, interrupted: Interrupted, tmp_path: Path
) -> None:
    root = interrupted.root.copy_to(tmp_path / "root")
    step = max(root.checkpoint_steps("retrain"))
    assert 0 < step < RETRAIN_STEPS

    finished(*reference.command("stage", "retrain", root=root), log=tmp_path / "log")

    assert root.resumed_at("retrain") == [step]
    assert reference.root.resumed_at("retrain") == []
    assert root.learnt("retrain") == reference.root.learnt("retrain")
    assert root.checkpoint_steps("retrain") == []


def test_a_killed_worker_is_survived_to_the_same_bits(reference: Reference, tmp_path: Path) -> None:
    root = reference.root.copy_to(tmp_path / "root", *BEFORE_RETRAIN)
    with started(*reference.command("stage", "retrain", root=root), log=tmp_path / "log") as run:
        run.until(lambda: root.is_beyond_a_checkpoint("retrain"), "an update after a checkpoint")
        workers = run.workers("RayTrainWorker")
        workers[0].kill()
        assert run.wait(STAGE_S) == 0, run.output

    assert len(workers) == 2
    (step,) = root.resumed_at("retrain")
    assert 0 < step < RETRAIN_STEPS
    assert root.learnt("retrain") == reference.root.learnt("retrain")


def test_another_number_of_workers_is_refused(
    reference: Reference, interrupted: Interrupted, tmp_path: Path
) -> None:
    root = interrupted.root.copy_to(tmp_path / "root")
    fewer = ("--set=runtime.train.workers=1", "--set=runtime.train.max_failures=0")
    command = reference.command("stage", "retrain", *fewer, root=root)

    output = finished(*command, log=tmp_path / "log", code=5)

    assert "was written by 2 workers and cannot be continued by 1" in output
    assert "set runtime.train.workers = 2" in output
    assert not root.is_sealed("retrain")
    assert root.checkpoint_steps("retrain") == interrupted.root.checkpoint_steps("retrain")


def test_a_killed_driver_leaves_no_process(interrupted: Interrupted) -> None:
    """Last, so that Ray's agents have had their minute."""
    interrupted.run.wait_until_gone()

    assert interrupted.run.family() == []
