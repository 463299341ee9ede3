"""Workers that hang on a real Ray, and what workers print, which outlives them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from support.local_ray import environment_of_workers
from support.s3_server import S3Server

from gmp_atl_dist import runtime
from gmp_atl_dist.config import RuntimeConfig, TrainWorkersConfig, WorkersConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.run_log import RunLog
from gmp_atl_dist.runtime import Gang, Task, TaskResult
from gmp_atl_dist.runtime.answering import await_answer
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.tags import Tags
from gmp_atl_dist.training.alive import SignsOfLife, StallWatch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STALLED_S = 20.0
HANGS_S = 600.0
KEPT_S = 15.0
SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def root(s3_server: S3Server) -> str:
    return s3_server.new_uri()


@pytest.fixture(scope="module")
def log(root: str) -> Iterator[RunLog]:
    """A Ray of this process with a remote root, as a run has it."""
    with (
        # pytest's own folders are too long for the sockets of Ray.
        tempfile.TemporaryDirectory(prefix="gar-", ignore_cleanup_errors=True) as folder,
        environment_of_workers(Path(__file__).parent) as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setenv("MY_PASSWORD", SECRET)
        with RunLog(root) as run_log, runtime.RayConnection(RuntimeConfig(root=root)) as connection:
            connection.open()
            yield run_log


class Prints:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __call__(self, task: Task) -> str:
        print(f"{task.name} by {os.environ['MY_PASSWORD']}", flush=True)
        if task.name == "stops":
            (self._folder / "pid").write_text(str(os.getpid()))
            # The logs of the tasks before are kept by a thread of this process, which stops as well.
            time.sleep(KEPT_S)
            os.kill(os.getpid(), signal.SIGSTOP)
        return "[]"


def mapped(folder: Path, *names: str, stalled_after_s: float) -> Iterator[TaskResult]:
    return runtime.map_tasks(
        [Task(name) for name in names],
        Prints,
        str(folder),
        workers=WorkersConfig(workers=2),
        retries=0,
        tags=Tags("run", "extract", "fold1"),
        stalled_after_s=stalled_after_s,
    )


def ended(pid_file: Path) -> None:
    """Ray may have killed it already."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).kill()


def worker_logs(root: str, log: RunLog, work: str) -> dict[str, str]:
    store = Store.open(root)
    found = store.list(f"run_logs/{log.path.stem}")
    return {e.path: store.read(e.path).decode() for e in found if f"-{work}-" in e.path}


def test_the_head_of_a_ray_answers(log: RunLog) -> None:
    await_answer(ray.get_runtime_context().gcs_address, wait_s=0.0)


@pytest.mark.nightly
def test_a_worker_that_is_stopped_does_not_stop_the_run_for_ever(
    log: RunLog, root: str, tmp_path: Path
) -> None:
    # On a busy machine a worker may need a minute to start, and that is no hang.
    began_s = time.monotonic()
    list(mapped(tmp_path, "first", stalled_after_s=HANGS_S))
    stalled_after_s = STALLED_S + round(3 * (time.monotonic() - began_s))
    done: list[str] = []
    try:
        with pytest.raises(
            WorkerError,
            match=rf"extract fold1: nothing was finished for {stalled_after_s:g} s .*"
            r" started and not finished: stops; a worker hangs",
        ):
            done.extend(
                result.name
                for result in mapped(tmp_path, "a", "b", "stops", stalled_after_s=stalled_after_s)
            )
        assert sorted(done) == ["a", "b"]
    finally:
        ended(tmp_path / "pid")
    # Both finished parts were printed, by one process or two, and each was kept after its part.
    until_s = time.monotonic() + 60
    while True:
        text = "".join(worker_logs(root, log, "extract-fold1").values())
        if "a by <MY_PASSWORD>" in text and "b by <MY_PASSWORD>" in text:
            break
        assert time.monotonic() < until_s, text
        time.sleep(0.5)
    assert SECRET not in text


def fails(argument: str, gang: Gang) -> None:
    print(f"rank {gang.rank} begins", flush=True)
    print("and warns", file=sys.stderr, flush=True)
    raise ValueError("of this rank alone")


def test_a_rank_that_fails_leaves_its_log(log: RunLog, root: str) -> None:
    config = TrainWorkersConfig(max_failures=0)
    with pytest.raises(WorkerError, match="kept failing"):
        runtime.train(
            fails,
            "",
            name="a-gang",
            store=Store.open(root),
            config=config,
            tags=Tags("run", "warmup", "fold1"),
        )
    ((path, text),) = worker_logs(root, log, "warmup-fold1-rank-0").items()
    assert path.startswith(f"run_logs/{log.path.stem}/")
    assert "--- standard output ---\n" in text
    assert "rank 0 begins\n" in text
    assert "and warns\n" in text
    assert "ValueError: of this rank alone" in text


def hangs(argument: str, gang: Gang) -> None:
    root, pid = argument.split("\n")
    SignsOfLife(Checkpoints(Store.open(root), "hanging"), gang.rank).give()
    Path(pid).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_gang_that_hangs_is_given_up(log: RunLog, root: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(Store.open(root), "hanging")
    watch = StallWatch("warmup fold1", STALLED_S)
    pid = tmp_path / "pid"

    def look() -> None:
        if pid.exists():
            watch.see("sign", checkpoints.alive())
            watch.check()

    try:
        with pytest.raises(WorkerError, match=r"warmup fold1: no update, .* for 20 s"):
            runtime.train(
                hangs,
                f"{root}\n{pid}",
                name="hanging",
                store=Store.open(root),
                config=TrainWorkersConfig(max_failures=0),
                while_waiting=look,
            )
    finally:
        ended(pid)
