"""DeepSpeed's C++ ops, built once at set-up: ``python -m gmp_atl_dist.training.ops``.

DeepSpeed compiles an op at its first use, which takes minutes. A process that is killed during that
leaves a ``lock`` file, and every later process waits for it forever. So the ops are built when the package
is installed, under an exclusive lock that ends with its process, into a folder of the environment.
Loading an op writes files beside it, so a read-only environment (a container's) uses a copy.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gmp_atl_dist.errors import WorkerError

_log = logging.getLogger(__name__)

_FOLDER_VARIABLE = "TORCH_EXTENSIONS_DIR"
_BUILD_S = 1800.0
"""The slowest build that was seen took 190 s, on two cores that did other work."""
_POLL_S = 0.2


def use_ops_folder() -> Path:
    """Make PyTorch use the environment's folder of built ops, unless the variable is set already."""
    if _FOLDER_VARIABLE not in os.environ:
        built = Path(sys.prefix, "torch_extensions")
        nearest = built if built.exists() else built.parent
        os.environ[_FOLDER_VARIABLE] = str(
            built if os.access(nearest, os.W_OK) else own_copy(built, Path(tempfile.gettempdir()))
        )
    folder = Path(os.environ[_FOLDER_VARIABLE])
    # DeepSpeed calls ninja by its name. If the environment is not activated, ninja is only found beside the
    # interpreter.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return folder


def own_copy(built: Path, place: Path) -> Path:
    """This user's copy of ``built`` in ``place``, made once for all processes.

    The copy keeps the times of the files, because ninja compares them.

    Raises:
        PermissionError: another user owns the folder of that name, so nothing is loaded from it.
    """
    folder = place / f"gmp-atl-torch-extensions-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(
            f"{folder}: other users can access it; remove it, or set {_FOLDER_VARIABLE} to a private folder"
        )
    copy = folder / "ops"
    with locked(folder / "copy.lock"):
        if not copy.exists():
            half = folder / "half"
            shutil.rmtree(half, ignore_errors=True)  # left by a process that was killed
            if built.exists():
                shutil.copytree(built, half, ignore=shutil.ignore_patterns("lock"))
            else:
                half.mkdir()
            half.rename(copy)
    return copy


@contextmanager
def locked(path: Path, wait_s: float = _BUILD_S) -> Iterator[None]:
    """Hold the lock ``path``, which ends with its process.

    Raises:
        WorkerError: another process has held it for ``wait_s``, such as one that was stopped.
    """
    until_s = time.monotonic() + wait_s
    with open(path, "w") as ours:
        while True:
            try:
                fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= until_s:
                    raise WorkerError(
                        f"{path} has been locked by another process for {wait_s:g} s; end the process that "
                        f"prepares DeepSpeed's ops (fuser {path} names it), and start again"
                    ) from e
            time.sleep(_POLL_S)
        yield


def end_stale_builds(folder: Path, wait_s: float = _BUILD_S) -> None:
    """Wait for builds of ops that are under way; after ``wait_s``, take them for dead.

    PyTorch marks a build by a file ``lock`` beside it and waits for that without an end. A process that is
    killed leaves the file behind.
    """
    until_s = time.monotonic() + wait_s
    while locks := list(folder.glob("*/lock")):
        for lock in locks:
            with suppress(FileNotFoundError):
                # By the file's time too: several trainings after each other must not all wait.
                if time.monotonic() >= until_s or time.time() - lock.stat().st_mtime >= wait_s:
                    lock.unlink()
                    _log.warning(
                        "%s: a build that has not ended for %g s; taken for dead", lock, wait_s
                    )
        time.sleep(_POLL_S)


def build_ops() -> str:
    """Compile the ops that a multi-process run on this machine's accelerator loads at its start.

    Only CPU runs need one: the shared-memory communicator, which DeepSpeed's CPU backend loads with the
    process group. Returns a line that says what was done.
    """
    folder = use_ops_folder()
    folder.mkdir(parents=True, exist_ok=True)
    from gmp_atl_dist.device import accelerator

    if accelerator() != "cpu":
        return "nothing to build: DeepSpeed's CUDA collectives are NCCL's"
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with locked(folder / "build.lock"):
        for stale in folder.glob("*/lock"):
            # Builds happen under our lock only, so the process that left this file is dead.
            stale.unlink()
        from deepspeed.comm.torch import build_shm_op

        built = build_shm_op()
    name = "none is compatible with this machine" if built is None else built.__name__
    return f"DeepSpeed ops in {folder}: {name}"


if __name__ == "__main__":
    print(build_ops())
