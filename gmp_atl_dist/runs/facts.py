"""Facts about this process and its machine, for the record of a run."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from gmp_atl_dist import __version__
from gmp_atl_dist.device import gpu_names
from gmp_atl_dist.redaction import without_secrets
from gmp_atl_dist.store.runs import Machine

_PACKAGES = ("torch", "transformers", "ray", "deepspeed", "pyarrow", "numpy")
_CHANGE = 0.02
"""Of the resident memory, from which on shared pages are counted anew."""
_GIT_LIMIT_S = 10.0
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the process that it starts for a job."""
_CLUSTER_NAME = "RAY_CLUSTER_NAME"
"""KubeRay sets it in each container of Ray."""
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


def this_machine(ray_address: str, *, gpus: bool = True) -> Machine:
    """The machine of this process. Without ``gpus``, its driver is not asked, which can take a second."""
    return Machine(
        host=socket.gethostname(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        gpus=gpu_names() if gpus else (),
        ray_address=without_secrets(ray_address),
    )


def this_job() -> str:
    """The submission id of the Ray job that this process was started by; empty outside one."""
    with suppress(ValueError, AttributeError):
        told = json.loads(os.environ.get(_JOB_CONFIG, "{}"))
        return str((told.get("metadata") or {}).get("job_submission_id") or "")
    return ""


def this_cluster() -> str:
    """The name of the RayCluster that this pod belongs to; empty outside Kubernetes."""
    return os.environ.get(_CLUSTER_NAME, "")


def _cpu_model() -> str:
    with suppress(OSError):
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor()


def _memory_bytes() -> int:
    """Memory of the machine, or of the container if it has less."""
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        return min(total, int(_MEMORY_LIMIT.read_text()))
    return total


def this_command() -> tuple[str, ...]:
    """The command line of this process, without secrets."""
    name = Path(sys.argv[0]).name
    words = ("gmp-atl" if name == "__main__.py" else name, *sys.argv[1:])
    return tuple(without_secrets(word) for word in words)


def git_commit(folder: Path | None = None) -> str:
    """The commit of ``folder`` (default: the working directory); ``+`` if tracked files differ from it.

    Empty outside a repository, and without git.
    """
    head = _git("rev-parse", "HEAD", folder=folder)
    if not head:
        return ""
    changed = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return f"{head}+" if changed else head


def _git(*arguments: str, folder: Path | None) -> str:
    # Without the optional locks, a look does not disturb a git that works there.
    environment: Mapping[str, str] = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the libraries that compute."""
    found = {"python": platform.python_version(), "gmp_atl_dist": __version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class FamilyMemory:
    """Memory of this process and of all processes below it, as a function without arguments.

    A Ray of the run's own lies below its driver, with all workers. Processes of a cluster that was
    running before do not, on this machine or another, so they are not counted. Memory that processes
    share (forked workers, Ray's object store, libraries) is counted once.
    """

    def __init__(self) -> None:
        self._resident: dict[int, int] = {}
        self._bytes = 0

    def __call__(self) -> int:
        """Bytes; up to 2 % off, because the exact sum takes the kernel 10 ms per process."""
        resident: dict[int, int] = {}
        process = psutil.Process()
        with suppress(psutil.Error):
            for member in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    resident[member.pid] = member.memory_info().rss
        change = abs(sum(resident.values()) - sum(self._resident.values()))
        if resident.keys() != self._resident.keys() or change > _CHANGE * sum(resident.values()):
            self._resident = resident
            self._bytes = sum(_own_share(pid, rss) for pid, rss in resident.items())
        return self._bytes


def _own_share(pid: int, resident: int) -> int:
    """Bytes of a process, of shared pages its share; ``resident`` where the kernel does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return resident


memory_of_family = FamilyMemory()
