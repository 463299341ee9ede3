"""``python -m ray_jobs.local ARGS`` runs ``run_pipeline.py ARGS`` as a job of a private Ray.

The head has its own ports, token and folder, so it does not interfere with another Ray on this
machine. Its dashboard listens on loopback only. The head ends when the job ends, also after an error.
Head, workers and job inherit the caller's environment (``AWS_*``) and working directory, so relative
paths work as usual.
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
_REMOVED_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_NAMESPACE",
    "RAY_AUTH_TOKEN_PATH",
)
_RAY = ("-m", "ray.scripts.scripts")


@dataclass(frozen=True)
class Head:
    """A Ray head: its process, its ports, and the environment for its clients."""

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
        """The last 2,000 characters of its output."""
        return (self.folder / _LOG).read_text(errors="replace")[-2000:]

    def get(self, path: str) -> dict[str, object]:
        """The dashboard's answer to a GET request.

        Raises:
            OSError: there is no answer, or its status is not 200.
        """
        token = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(urllib.request.Request(self.url + path, headers=token), timeout=10) as f:
            return json.load(f)


def run_job(script: Path, args: Sequence[str]) -> int:
    """Run ``script args`` as a job of a private Ray, and return the job's exit code.

    The job's output is copied to the stdout of this process while the job runs.

    Raises:
        RuntimeError: the head did not start in time, rejected the job, or died. The message contains
            its output.
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
            raise RuntimeError(f"Ray rejected the job:\n{done.stdout}{done.stderr}")
        code = _follow(head, job)
    return code if code >= 0 else 128 - code


@contextmanager
def private_head(num_cpus: int | None = None) -> Iterator[Head]:
    """A private head for the duration of the block. The head and all its processes end with it.

    ``num_cpus``: the number of cores of this machine unless given.

    Raises:
        RuntimeError: the head did not start in time, or died. The message contains its output.
    """
    # A short path, because the path of a unix socket below it is limited to about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="gar-", dir="/tmp"))
    head: Head | None = None
    try:
        head = _start(folder, os.cpu_count() or 1 if num_cpus is None else num_cpus)
        _wait_until_ready(head)
        yield head
    finally:
        # A second Ctrl-C must not leave Ray processes behind.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        _stop(head, folder)
        shutil.rmtree(folder, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(folder: Path, num_cpus: int) -> Head:
    env = {name: value for name, value in os.environ.items() if name not in _REMOVED_VARIABLES}
    no_proxy = ",".join(filter(None, ["127.0.0.1,localhost", env.get("no_proxy")]))
    env |= {
        _MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # The job has ended, so there is nothing to drain. Ray would wait 30 s after SIGTERM.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # A health check on one machine is cheap, and every report of a training waits for the next one.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    python = _python_without_spaces(folder)
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


def _python_without_spaces(folder: Path) -> str:
    """A path of this interpreter without spaces: Ray starts workers by a shell and does not quote."""
    if not re.search(r"\s", sys.executable):
        return sys.executable
    (folder / "venv").symlink_to(sys.prefix, target_is_directory=True)
    return str(folder / "venv" / Path(sys.executable).relative_to(sys.prefix))


def _wait_until_ready(head: Head) -> None:
    """Wait until the dashboard answers and the agent that starts jobs listens."""
    start = time.monotonic()
    while time.monotonic() < start + _READY_S and head.process.poll() is None:
        with suppress(OSError):
            head.get("/api/version")
            socket.create_connection(("127.0.0.1", head.agent_port), timeout=5).close()
            return
        time.sleep(_POLL_S)
    if head.process.poll() is not None:
        raise _head_died(head)
    raise RuntimeError(
        f"Ray's head is not ready after {_READY_S:.0f} s; its output:\n{head.output()}"
    )


def _head_died(head: Head) -> RuntimeError:
    return RuntimeError(
        f"Ray's head ended with exit code {head.process.poll()}; its output:\n{head.output()}"
    )


def _follow(head: Head, job: str) -> int:
    """Copy the job's output to stdout until it ends, and return its exit code.

    ``ray job submit`` could wait as well, but it repeats the output of a failed job and hides the
    exit code.
    """
    log = head.folder / "session_latest" / "logs" / f"job-driver-{job}.log"
    info: dict[str, object] = {}
    copied_bytes = 0
    while head.process.poll() is None:
        # The status is read before the output is copied, so that the last copy is complete.
        with suppress(OSError):
            info = head.get(f"/api/jobs/{job}")
        with suppress(FileNotFoundError), log.open("rb") as f:
            f.seek(copied_bytes)
            copied_bytes += sys.stdout.buffer.write(f.read())
            sys.stdout.flush()
        if info.get("status") in ("SUCCEEDED", "FAILED", "STOPPED"):
            code = info.get("driver_exit_code")
            if isinstance(code, int):
                return code
            raise RuntimeError(f"Ray did not complete the job: {info.get('message')}")
        time.sleep(_POLL_S)
    raise _head_died(head)


def _stop(head: Head | None, folder: Path) -> None:
    """End the head, which ends its processes; then kill the remaining ones, such as the job's session."""
    if head is not None:
        head.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.process.wait(_STOP_S)
    deadline = time.monotonic() + _STOP_S
    while remaining := [p for p in psutil.process_iter() if _mark_of(p) == str(folder)]:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{[p.pid for p in remaining]} cannot be killed; end these processes by hand"
            )
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=1.0)
    if head is not None:
        head.process.wait()


def _mark_of(process: psutil.Process) -> str | None:
    """The head's mark in a process's environment. Every child inherits it, in any process session."""
    try:
        return process.environ().get(_MARK)
    except (psutil.Error, OSError):
        return None


def _free_ports(count: int) -> list[int]:
    """Different free ports of the loopback interface."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"there are fewer than {count} free ports in {_PORTS}")


def _exit_on_signal(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        sys.exit(run_job(Path(__file__).with_name("run_pipeline.py"), sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
