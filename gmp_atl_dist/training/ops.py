"""DeepSpeed's C++ ops, built once at set-up: ``python -m gmp_atl_dist.training.ops``.

DeepSpeed compiles an op at its first use, which takes minutes. A process that is killed meanwhile
leaves a ``lock`` file for which every later one waits for ever. So they are built when the package
is installed, under an exclusive lock that dies with its process, into a folder of the environment.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

_FOLDER_VARIABLE = "TORCH_EXTENSIONS_DIR"


def use_ops_folder() -> Path:
    """Point PyTorch at the environment's own folder of built ops, unless one is set already."""
    folder = Path(os.environ.setdefault(_FOLDER_VARIABLE, f"{sys.prefix}/torch_extensions"))
    # DeepSpeed calls ninja by name, which stands beside the interpreter when the
    # environment was not activated.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return folder


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
