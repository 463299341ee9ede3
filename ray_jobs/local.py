"""``python -m ray_jobs.local ARGS``: run ``run_pipeline.py ARGS`` as a job of a private Ray head.

``python -m ray_jobs.local sweep ARGS`` runs ``run_sweep.py ARGS``.

The head has its own ports, token and folder, so it cannot be mixed up with another Ray of this machine.
Its dashboard listens on the loopback interface only. The head stops when the job ends, however it ends.
Head, workers and job inherit the caller's environment (``AWS_*``) and working directory, so relative
paths mean the same as for the caller.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from gmp_atl_dist import stopping
from gmp_atl_dist.cli.again import AGAIN
from gmp_atl_dist.errors import GmpAtlError, WorkerError
from gmp_atl_dist.ray_api.jobs import Job, Jobs
from gmp_atl_dist.redaction import say_error
from gmp_atl_dist.runtime.connection import ON_THIS_MACHINE
from gmp_atl_dist.runtime.ray_start import NO_SPARE_WORKERS

_OBJECT_STORE_BYTES = 10**9
_READY_S = 1800.0
"""A busy machine may need minutes; the limit only catches a head that hangs."""
_STOP_S = 20.0
_POLL_S = 0.3
_LOG = "head.log"
_RAY_FOLDER = "r"
_SWEEP = "run_sweep.py"
_PORTS = range(20_000, 32_000)  # between Ray's worker ports and Linux's ephemeral ones
_MARK = ON_THIS_MACHINE
_NOT_INHERITED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_NAMESPACE", "RAY_AUTH_TOKEN_PATH")
_NO_PROXY = ("NO_PROXY", "no_proxy")
_RAY = ("-m", "ray.scripts.scripts")


@dataclass(frozen=True)
class Head:
    """A Ray head: its process, its ports, and the environment that its clients need."""

    process: subprocess.Popen[bytes]
    folder: Path
    python: str
    env: dict[str, str]
    gcs_port: int
    dashboard_port: int
    agent_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def output(self) -> str:
        """The end of what it printed."""
        return (self.folder / _LOG).read_text(errors="replace")[-2000:]

    @property
    def token(self) -> str:
        return self.env["RAY_AUTH_TOKEN"]

    def get(self, path: str) -> dict[str, object]:
        """The dashboard's answer.

        Raises:
            OSError: it does not answer, or not with 200.
        """
        token = {"Authorization": f"Bearer {self.token}"}
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(urllib.request.Request(self.url + path, headers=token), timeout=10) as f:
            return json.load(f)


def run_job(script: Path, args: Sequence[str]) -> int:
    """Run ``script args`` as a job of a private Ray and return the job's exit code.

    The job's output goes to this process's standard output while the job runs.

    Raises:
        WorkerError: the head did not become ready, refused the job or died; the message has its output.
    """
    name = f"gmp-atl-{secrets.token_hex(4)}"
    _write("starting a Ray of its own for this job, on this machine only\n")
    words = ["sweep", *args] if script.name == _SWEEP else list(args)
    with private_head(args=words) as head:
        command = shlex.join([head.python, str(script.resolve()), *args])
        # The client is in this process, and must not ask a proxy for the loopback interface.
        os.environ.update({key: head.env[key] for key in _NO_PROXY})
        stopping.check()
        jobs = Jobs(head.url, head.token)
        with stopping.deferred("the job saves a checkpoint"):
            jobs.submit(name, command)
            with _stop_passed_on(jobs, name):
                job = jobs.follow(name, _write, lambda: _check_alive(head))
    signum = stopping.requested()
    return _exit_code(job) if signum is None else 128 + signum


@contextmanager
def _stop_passed_on(jobs: Jobs, job: str) -> Iterator[None]:
    """When this process is asked to stop, have Ray stop the job, which then ends by itself."""
    over = threading.Event()

    def pass_on() -> None:
        while not over.wait(_POLL_S):
            if stopping.requested() is not None:
                # Without an answer, a second Ctrl-C is left.
                with suppress(GmpAtlError):
                    jobs.stop(job)
                return

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _exit_code(job: Job) -> int:
    if job.exit_code is None:
        raise WorkerError(f"Ray did not run the job to its end: {job.message}")
    return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def private_head(num_cpus: int | None = None, args: Sequence[str] = ()) -> Iterator[Head]:
    """A Ray head that runs during the block. Afterwards it is stopped with all that it started.

    ``num_cpus`` defaults to the cores of this machine. Jobs name ``args`` as the arguments to run again.

    Raises:
        WorkerError: it did not become ready or died; the message has its output.
    """
    # A short path, because the path of a unix socket has at most some 100 characters. Ray opens its own
    # folder to everybody (0o777), so it lies below one that only this user may enter.
    private = Path(tempfile.mkdtemp(prefix="gar-", dir="/tmp"))
    folder = private / _RAY_FOLDER
    folder.mkdir(mode=0o700)
    head: Head | None = None
    try:
        head = _start(folder, os.cpu_count() or 1 if num_cpus is None else num_cpus, args)
        _wait_until_ready(head)
        yield head
    finally:
        # Ctrl-C must not leave processes of Ray behind.
        with stopping.deferred("ending Ray"):
            _stop(head, folder)
            shutil.rmtree(private, ignore_errors=True)


def _start(folder: Path, num_cpus: int, args: Sequence[str]) -> Head:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    no_proxy = ",".join(filter(None, ["127.0.0.1,localhost", env.get("no_proxy")]))
    env |= {
        _MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # The job is over, so nothing is left to drain. Ray would wait 30 s after SIGTERM.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Each report of a training waits for the next poll, and polling one machine is cheap.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        # Stopping the job saves a checkpoint. Ray would kill it after 3 s.
        "RAY_JOB_STOP_WAIT_TIME_S": "600",
        stopping.PASSED_ON: "1",
        **NO_SPARE_WORKERS,
        AGAIN: shlex.join(["python", "-m", "ray_jobs.local", *args]),
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(_NO_PROXY, no_proxy),
    }
    python = _plain_path_of_python(folder)
    gcs, dashboard, client, agent, agent_grpc, runtime_env, metrics = _free_ports(7)
    command = [
        *(python, *_RAY, "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={folder}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        *(f"--runtime-env-agent-port={runtime_env}", f"--metrics-export-port={metrics}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--num-cpus={num_cpus}", f"--object-store-memory={_OBJECT_STORE_BYTES}"),
    ]
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Head(process, folder, python, env, gcs, dashboard, agent)


def _plain_path_of_python(folder: Path) -> str:
    """The path of this interpreter without spaces: Ray starts workers by a shell and does not quote."""
    if not re.search(r"\s", sys.executable):
        return sys.executable
    (folder / "venv").symlink_to(sys.prefix, target_is_directory=True)
    return str(folder / "venv" / Path(sys.executable).relative_to(sys.prefix))


def _wait_until_ready(head: Head) -> None:
    """Wait until the dashboard answers and the agent that starts jobs listens."""
    start = time.monotonic()
    while time.monotonic() < start + _READY_S:
        _check_alive(head)
        with suppress(OSError):
            head.get("/api/version")
            socket.create_connection(("127.0.0.1", head.agent_port), timeout=5).close()
            return
        time.sleep(_POLL_S)
    raise WorkerError(
        f"Ray's head is not ready after {_READY_S:.0f} s; its output:\n{head.output()}"
    )


def _check_alive(head: Head) -> None:
    code = head.process.poll()
    if code is not None:
        raise WorkerError(f"Ray's head ended with exit code {code}; its output:\n{head.output()}")


def _stop(head: Head | None, folder: Path) -> None:
    """Stop the head, which stops its processes; then kill what is left, such as the job's session."""
    if head is not None:
        head.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.process.wait(_STOP_S)
    deadline = time.monotonic() + _STOP_S
    while left := [p for p in psutil.process_iter() if _mark_of(p) == str(folder)]:
        if time.monotonic() > deadline:
            raise WorkerError(
                f"processes {[p.pid for p in left]} cannot be killed; end them yourself"
            )
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
    if head is not None:
        head.process.wait()


def _mark_of(process: psutil.Process) -> str | None:
    """The folder of the head that started a process: all of them inherit the head's environment."""
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):
        return None


def _free_ports(count: int) -> list[int]:
    """Different free ports of the loopback interface."""
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise WorkerError(f"fewer than {count} ports of {_PORTS} are free; stop what uses them")


def _tell(text: str) -> None:
    say_error(text)


def _kill_marked() -> None:
    """SIGKILL the head of this process and all that it has started."""
    folders = {mark for child in stopping.descendants() if (mark := _mark_of(child))}
    for _ in range(2):
        stopping.kill([p for p in psutil.process_iter() if _mark_of(p) in folders])
    for folder in folders:
        shutil.rmtree(Path(folder).parent, ignore_errors=True)


def main(script: Path, args: Sequence[str]) -> int:
    """Run ``script args`` as a job of a private Ray; the exit code is that of the job, or of a signal."""
    try:
        with stopping.stoppable(_tell, _kill_marked):
            try:
                return run_job(script, args)
            except KeyboardInterrupt:
                return 128 + (stopping.requested() or signal.SIGINT)
    except GmpAtlError as e:
        say_error(f"error: {e}")
        return e.exit_code


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["sweep"]:
        sys.exit(main(Path(__file__).with_name(_SWEEP), words[1:]))
    sys.exit(main(Path(__file__).with_name("run_pipeline.py"), words))
