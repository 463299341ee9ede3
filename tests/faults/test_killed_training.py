from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.pipeline_runs import RETRAIN_STEPS, STAGE_S, Interrupted, Reference, finished, started

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(2400), pytest.mark.slow]

GRACE_S = 30.0
"""What Kubernetes gives a pod."""

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


@pytest.mark.nightly
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


def test_sigterm_saves_and_leaves(reference: Reference, tmp_path: Path) -> None:
    root = reference.root.copy_to(tmp_path / "root", *BEFORE_RETRAIN)
    # Still under way when the signal comes, and with no checkpoint but the one on leaving.
    steps, never = 4000, "--set=runtime.train.checkpoint_every_steps=100000"
    command = reference.command(
        "stage", "retrain", f"--set=retrain.steps={steps}", never, root=root
    )
    with started(*command, log=tmp_path / "log") as run:
        run.until(lambda: list(root.folder.glob("artifacts/retrain/*/_progress.json")), "an update")
        run.process.terminate()
        assert run.wait(GRACE_S) == 143, run.output
        assert "stopping (SIGTERM): saving a checkpoint" in run.output
        assert "; press Ctrl-C again to end at once" in run.output
        assert "stopped by SIGTERM: retrain fold1: saved a checkpoint after update " in run.output
    # That one goes on from such a checkpoint is above.
    (step,) = root.checkpoint_steps("retrain")
    assert 0 < step < steps


def test_a_killed_driver_leaves_no_process(interrupted: Interrupted) -> None:
    """Last, so that Ray's agents have had their minute."""
    interrupted.run.wait_until_gone()

    assert interrupted.run.family() == []


def test_status_tells_that_a_driver_was_killed(
    reference: Reference, interrupted: Interrupted, tmp_path: Path
) -> None:
    """By the store alone: without the configuration file, and on a copy without the corpus's path."""
    root = str(interrupted.root.copy_to(tmp_path / "root").folder)
    told = json.loads(finished("status", "--root", root, "--json", log=tmp_path / "status"))
    assert told["state"] == "killed"
    states = {row["label"]: row["state"] for row in told["stages"]}
    assert states == {
        **dict.fromkeys(("ingest", "backbone", "warmup fold1"), "done"),
        **dict.fromkeys(("extract fold1", "cluster fold1", "label fold1"), "done"),
        "retrain fold1": "killed",
        **dict.fromkeys(("finetune fold1", "evaluate fold1", "report"), "waiting"),
    }
    (row,) = (row for row in told["stages"] if row["label"] == "retrain fold1")
    assert row["started_s"] is not None
    assert row["ends_s"] is None

    shown = finished("runs", "show", told["run"], "--root", root, "--json", log=tmp_path / "show")
    (attempt,) = json.loads(shown)["attempts"]
    assert attempt["state"] == "running", "the driver could not write that it was killed"
    assert attempt["ended_s"] is None
    assert "run" in attempt["command"]
    (listed,) = json.loads(finished("runs", "--root", root, "--json", log=tmp_path / "runs"))
    assert listed["run_state"] == "killed"


def test_the_record_has_the_memory_of_the_workers(reference: Reference, tmp_path: Path) -> None:
    root = str(reference.root.folder)
    listed = json.loads(finished("runs", "--root", root, "--json", log=tmp_path / "runs"))
    stages = {stage["label"]: stage for stage in listed[0]["stages"]}
    # Two workers that train hold some 0.7 GB each; the driver alone has less than one of them.
    peak = stages["retrain fold1"]["peak_memory_bytes"]
    assert peak > max(1 << 30, stages["backbone"]["peak_memory_bytes"])
    assert stages["retrain fold1"]["updates"] == RETRAIN_STEPS
    assert (reference.root.folder / "runs" / listed[0]["name"] / "report.html").is_file()
