"""``python -m ray_jobs.local ARGS``: ``run_pipeline.py ARGS`` as a job of a Ray of its own.

The head has ports, a token and a folder of its own, so it neither meets another Ray of this machine
nor is met by one; its dashboard listens on loopback alone. It ends when the job does, whatever the
job's end is. Head, workers and job inherit the caller's environment (``AWS_*``) and working
directory, so relative paths mean what they meant to the caller.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

_OBJECT_STORE_BYTES = 10**9
_READY_S = 120.0
_STOP_S = 20.0
_POLL_S = 0.3
_LOG = "head.log"
_PORTS = range(20_000, 32_000)  # between Ray's worker ports and Linux's ephemeral ones
_MARK = "GMP_ATL_LOCAL_RAY"
_NOT_INHERITED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_NAMESPACE", "RAY_AUTH_TOKEN_PATH")
_RAY = ("-m", "ray.scripts.scripts")


@dataclass(frozen=True)
class Head:
    """A Ray head: its process, its dashboard, and the environment of whoever talks to it."""

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

    def said(self) -> str:
        """The end of what it printed."""
        return (self.folder / _LOG).read_text(errors="replace")[-2000:]

    def get(self, path: str) -> dict[str, object]:
        """The dashboard's answer.

        Raises:
            OSError: it does not answer, or not with 200.
        """
        token = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(urllib.request.Request(self.url + path, headers=token), timeout=10) as f:
            return json.load(f)


def run_job(script: Path, args: Sequence[str]) -> int:
    """Run ``script args`` as a job of a private Ray; returns the job's exit code.

    What the job prints goes to this process's stdout as it comes.

    Raises:
        RuntimeError: the head did not come up in time, refused the job, or died; with its words.
    """
    job = f"gmp-atl-{secrets.token_hex(4)}"
    with private_head() as head:
        submit = [
            *(head.python, *_RAY, "job", "submit", "--address", head.url),
            *("--submission-id", job, "--no-wait"),
            *("--", head.python, str(script.resolve()), *args),
        ]
        done = subprocess.run(submit, env=head.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Ray refused the job:\n{done.stdout}{done.stderr}")
        code = _follow(head, job)
    return code if code >= 0 else 128 - code


@contextmanager
def private_head(num_cpus: int | None = None) -> Iterator[Head]:
    """A head of its own for as long as the block takes; it and all that it started end with it.

    ``num_cpus`` are those of this machine unless given.

    Raises:
        RuntimeError: it did not come up in time, or died; with its words.
    """
    # A short path, because unix sockets below it may have some 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="gar-", dir="/tmp"))
    head: Head | None = None
    try:
        head = _start(folder, os.cpu_count() or 1 if num_cpus is None else num_cpus)
        _wait_until_ready(head)
        yield head
    finally:
        # A second Ctrl-C must not leave a Ray behind.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        _stop(head, folder)
        shutil.rmtree(folder, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(folder: Path, num_cpus: int) -> Head:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    no_proxy = ",".join(filter(None, ["127.0.0.1,localhost", env.get("no_proxy")]))
    env |= {
        _MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Nothing to drain: the job is over. Ray would wait 30 s on SIGTERM.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # One machine is asked cheaply; every report of a training waits for the next look.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
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
    """This interpreter; Ray starts workers through a shell, and does not quote spaces."""
    if not re.search(r"\s", sys.executable):
        return sys.executable
    (folder / "venv").symlink_to(sys.prefix, target_is_directory=True)
    return str(folder / "venv" / Path(sys.executable).relative_to(sys.prefix))


def _wait_until_ready(head: Head) -> None:
    """Until the dashboard answers and the agent that starts jobs listens."""
    start = time.monotonic()
    while time.monotonic() < start + _READY_S and head.process.poll() is None:
        with suppress(OSError):
            head.get("/api/version")
            socket.create_connection(("127.0.0.1", head.agent_port), timeout=5).close()
            return
        time.sleep(_POLL_S)
    if head.process.poll() is not None:
        raise _death_of(head)
    raise RuntimeError(f"Ray's head is not ready after {_READY_S:.0f} s; it said:\n{head.said()}")


def _death_of(head: Head) -> RuntimeError:
    return RuntimeError(f"Ray's head ended with {head.process.poll()}; it said:\n{head.said()}")


def _follow(head: Head, job: str) -> int:
    """Copy what the job prints to stdout until its end; its exit code.

    `ray job submit` would wait as well, but repeats the output of a job that fails, and hides its
    exit code.
    """
    log = head.folder / "session_latest" / "logs" / f"job-driver-{job}.log"
    info: dict[str, object] = {}
    shown = 0
    while head.process.poll() is None:
        # Asked before the copy, so that the last copy is of all.
        with suppress(OSError):
            info = head.get(f"/api/jobs/{job}")
        with suppress(FileNotFoundError), log.open("rb") as f:
            f.seek(shown)
            shown += sys.stdout.buffer.write(f.read())
            sys.stdout.flush()
        if info.get("status") in ("SUCCEEDED", "FAILED", "STOPPED"):
            code = info.get("driver_exit_code")
            if isinstance(code, int):
                return code
            raise RuntimeError(f"Ray did not run the job to its end: {info.get('message')}")
        time.sleep(_POLL_S)
    raise _death_of(head)


def _stop(head: Head | None, folder: Path) -> None:
    """End the head, which ends its own; then what is left of it, such as the job's session."""
    if head is not None:
        head.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.process.wait(_STOP_S)
    deadline = time.monotonic() + _STOP_S
    while left := [p for p in psutil.process_iter() if _mark_of(p) == str(folder)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{[p.pid for p in left]} cannot be killed; end these processes")
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)
    if head is not None:
        head.process.wait()


def _mark_of(process: psutil.Process) -> str | None:
    """Everything below a head inherits its environment, also what left its process session."""
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):
        return None


def _free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nobody listens."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"there are no {count} free ports among {_PORTS}")


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(run_job(Path(__file__).with_name("run_pipeline.py"), sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
