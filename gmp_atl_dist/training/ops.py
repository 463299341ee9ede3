"""DeepSpeed's C++ ops, built once at set-up: ``python -m gmp_atl_dist.training.ops``.

DeepSpeed compiles an op at its first use, which takes minutes. A process that is killed meanwhile
leaves a ``lock`` file for which every later one waits for ever. So they are built when the package
is installed, under an exclusive lock that dies with its process, into a folder of the environment.
Loading one writes beside it, so where the environment is read-only (a container's) a copy is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path

_FOLDER_VARIABLE = "TORCH_EXTENSIONS_DIR"


def use_ops_folder() -> Path:
    """Point PyTorch at the environment's own folder of built ops, unless one is set already."""
    if _FOLDER_VARIABLE not in os.environ:
        built = Path(sys.prefix, "torch_extensions")
        nearest = built if built.exists() else built.parent
        os.environ[_FOLDER_VARIABLE] = str(
            built if os.access(nearest, os.W_OK) else own_copy(built, Path(tempfile.gettempdir()))
        )
    folder = Path(os.environ[_FOLDER_VARIABLE])
    # DeepSpeed calls ninja by name, which stands beside the interpreter when the
    # environment was not activated.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return folder


def own_copy(built: Path, place: Path) -> Path:
    """This user's copy of ``built`` in ``place``, made once for all processes; ninja goes by its times.

    Raises:
        PermissionError: another user has made a folder of that name, from which we load nothing.
    """
    folder = place / f"gmp-atl-torch-extensions-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(
            f"{folder}: is not this user's alone; remove it, or set {_FOLDER_VARIABLE} to a folder that is"
        )
    copy = folder / "ops"
    with open(folder / "copy.lock", "w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        if not copy.exists():
            half = folder / "half"
            shutil.rmtree(half, ignore_errors=True)  # of a process that was killed meanwhile
            if built.exists():
                shutil.copytree(built, half, ignore=shutil.ignore_patterns("lock"))
            else:
                half.mkdir()
            half.rename(copy)
    return copy


def build_ops() -> str:
    """Compile what a multi-process run on this machine's accelerator loads at its start.

    Only CPU runs need one: the shared-memory communicator that DeepSpeed's CPU backend loads with
    the process group. Returns a line that says what was done.
    """
    folder = use_ops_folder()
    folder.mkdir(parents=True, exist_ok=True)
    from gmp_atl_dist.device import accelerator

    if accelerator() != "cpu":
        return "nothing to build: DeepSpeed's CUDA collectives are NCCL's"
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with open(folder / "build.lock", "w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        for stale in folder.glob("*/lock"):
            # We hold the only lock under which anybody builds here, so its owner is dead.
            stale.unlink()
        from deepspeed.comm.torch import build_shm_op

        built = build_shm_op()
    name = "none is compatible with this machine" if built is None else built.__name__
    return f"DeepSpeed ops in {folder}: {name}"


if __name__ == "__main__":
    print(build_ops())
