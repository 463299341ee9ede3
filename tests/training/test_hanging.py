"""A training that hangs is told from one that is slow, and every rank that waits for another gives up."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from support.gangs import Rank
from support.one_process import FOLD, OneRank, Tiny, train_here

from gmp_atl_dist import runtime
from gmp_atl_dist.config import WarmupConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.stages import trained
from gmp_atl_dist.stages.base import run_and_seal
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.training import mlflow_log, ops
from gmp_atl_dist.training.alive import SignsOfLife, StallWatch
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.mlflow_log import MlflowLog
from gmp_atl_dist.training.ranks import HostGroup, in_time

pytest_plugins = ["support.one_process"]

TIMEOUT_S = 3.0
HANGS_S = 60.0


def rank_that_may_stop(rank: int, folder: str) -> None:
    """Rank 1 is stopped, as by a debugger or a full disk of swap; rank 0 writes what it is told."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/group",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    group = HostGroup(TIMEOUT_S)
    group.sums([1.0])
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        with in_time("warmup fold1", Rank(rank, 2), TIMEOUT_S):
            group.sums([1.0])
    except WorkerError as e:
        Path(folder, "said").write_text(e.message)
    os._exit(0)


def test_a_rank_that_never_comes_to_a_sum(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=rank_that_may_stop, args=(n, str(tmp_path))) for n in (0, 1)]
    for process in ranks:
        process.start()
    try:
        ranks[0].join(HANGS_S)
        assert not ranks[0].is_alive(), "it waits for ever"
        said = (tmp_path / "said").read_text()
        assert said.startswith(
            "warmup fold1: worker 0 has waited 3 s for the other 1 (runtime.train."
        )
    finally:
        for process in ranks:
            process.kill()
            process.join()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_slow_training_is_not_stopped_and_a_hanging_one_is() -> None:
    clock = Clock()
    watch = StallWatch("warmup fold1", 100.0, clock)
    for update in range(1, 6):
        clock.now_s += 99
        watch.see("updates", update)
        watch.see("sign", None)
        watch.check()
    clock.now_s += 60
    watch.see("sign", "a validation goes on")
    clock.now_s += 90
    watch.see("updates", 5)
    watch.see("sign", "a validation goes on")
    watch.check()
    clock.now_s += 11
    with pytest.raises(WorkerError, match=r"no update, .* for 100 s \(runtime\.stalled_after_s\)"):
        watch.check()


def test_workers_that_never_start_have_another_message() -> None:
    clock = Clock()
    watch = StallWatch("retrain fold2", 100.0, clock)
    clock.now_s += 101
    with pytest.raises(WorkerError, match=r"retrain fold2: its workers have not started for 100 s"):
        watch.check()


def test_a_stage_whose_gang_hangs_ends(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gang takes an update, and then none any more: Ray's own calls stay as they are."""
    context = tiny.with_root(tmp_path / "root")
    settings = context.settings.model_copy(update={"stalled_after_s": 1.0})
    stage = Warmup(WarmupConfig(epochs=1), tiny.corpus, tiny.backbone, FOLD)

    def hangs(loop: object, job: TrainJob, *, while_waiting, **_: object) -> None:
        SignsOfLife(job.checkpoints, 0).give()
        began_s = time.monotonic()
        while time.monotonic() - began_s < HANGS_S:
            time.sleep(0.05)
            while_waiting()

    monkeypatch.setattr(runtime, "train", hangs)
    monkeypatch.setattr(runtime.RayConnection, "open", lambda _: None)
    monkeypatch.setattr(trained, "_POLL_S", 0.1)
    monkeypatch.setattr(trained, "_SIGN_POLL_S", 0.1)
    changed = type(context)(
        context.store, context.source, settings, context.reporter, context.connection
    )
    with pytest.raises(WorkerError, match=r"warmup fold1: no update, .*run the same command again"):
        run_and_seal(stage, changed)


def test_a_training_gives_signs_where_it_takes_no_updates(tiny: Tiny, tmp_path: Path) -> None:
    config = WarmupConfig.model_validate({"batch_s": 3.0, "lr": 1e-3, "epochs": 2})
    recipe = WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())
    given: list[float] = []

    class Counts(Checkpoints):
        def note_alive(self) -> None:
            given.append(time.monotonic())
            super().note_alive()

    class Job(TrainJob):
        @property
        def checkpoints(self) -> Checkpoints:
            return Counts(self.store, self.key.fingerprint)

    job = Job(
        recipe,
        Store.open(str(tmp_path / "root")),
        ArtifactKey("warmup", "e" * 64),
        tiny.context.settings.train,
    )
    train_here(job, OneRank())
    assert len(given) == 1, "at most one put in 30 s"
    assert job.checkpoints.alive()
    job.checkpoints.forget()
    assert job.checkpoints.alive() is None


def test_a_lock_whose_holder_is_stopped_names_itself(tmp_path: Path) -> None:
    lock = tmp_path / "copy.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, signal, sys\n"
            "f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
            "print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)",
            str(lock),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(WorkerError, match=r"copy\.lock has been locked .* for 0\.5 s; end the"),
            ops.locked(lock, 0.5),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with ops.locked(lock, 5.0):
        pass


def test_a_build_that_was_killed_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "shm").mkdir()
    lock = tmp_path / "shm" / "lock"
    lock.touch()
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        ops.end_stale_builds(tmp_path, 0.5)
    assert not lock.exists()
    assert "taken for dead" in caplog.text
    assert 0.4 < time.monotonic() - began_s < HANGS_S

    lock.touch()
    os.utime(lock, (1e9, 1e9))
    ops.end_stale_builds(tmp_path, HANGS_S)
    assert not lock.exists(), "an old one is not waited for at all"


def test_a_build_that_is_under_way_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "shm").mkdir()
    lock = tmp_path / "shm" / "lock"
    lock.touch()
    threading.Timer(0.5, lock.unlink).start()
    ops.end_stale_builds(tmp_path, HANGS_S)
    assert not lock.exists()


def test_an_mlflow_server_that_never_answers_does_not_keep_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answered = threading.Event()
    silent = SimpleNamespace(MlflowClient=lambda **_: answered.wait(HANGS_S))
    monkeypatch.setattr(mlflow_log, "find_spec", lambda _: object())
    monkeypatch.setattr(mlflow_log, "import_module", lambda _: silent)
    log = MlflowLog("https://mlflow.example.org", "e", ArtifactKey("warmup", "f" * 64), close_s=0.3)
    began_s = time.monotonic()
    try:
        for step in range(3):
            log.log(step, {"loss": 1.0})
            log.flush()
        with caplog.at_level(logging.WARNING):
            log.close()
        assert time.monotonic() - began_s < HANGS_S / 2
        assert "has not taken the last metrics within 0.3 s" in caplog.text
    finally:
        answered.set()
