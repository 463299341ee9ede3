"""Facts about GPUs for messages and for doctor: builds, driver, memory, and errors of memory that is full.

Nothing here imports torch by itself, so doctor can ask without waiting for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gmp_atl_dist.errors import WorkerError

_GIB = float(1 << 30)
_QUERY = "index,name,driver_version,memory.free,memory.total,compute_cap"
_FULL = re.compile(
    r"out of memory|(CUBLAS|CUSOLVER|CUSPARSE|CUDNN)_STATUS_ALLOC_FAILED|failed to cudaMalloc",
    re.IGNORECASE,
)
"""What PyTorch, cuBLAS, cuDNN, NCCL and FAISS say when they get no memory. PyTorch alone has a class."""
_FOREIGN_SHARE = 0.1
"""Of the memory: a context and the libraries' own buffers take less."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver lists it."""

    index: int
    name: str
    driver: str
    """Version of the driver, e.g. 580.95.05."""
    free_bytes: int
    total_bytes: int
    compute_capability: tuple[int, int]
    """bf16 needs (8, 0)."""


@dataclass(frozen=True)
class TorchBuild:
    """The installed PyTorch, from its own file."""

    version: str
    toolkit: str | None
    """The version of CUDA that it was built for, e.g. 13.0; None: a build for CPUs."""

    def __str__(self) -> str:
        built = f"CUDA {self.toolkit}" if self.toolkit else "CPUs only"
        return f"PyTorch {self.version}, built for {built}"


def torch_build() -> TorchBuild | None:
    """What PyTorch was built for; None if it is not installed."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text()
    version, cuda = (
        re.search(rf"^{name}\b.*?=\s*'([^']*)'", text, re.MULTILINE)
        for name in ("__version__", "cuda")
    )
    return TorchBuild(version.group(1) if version else "?", cuda.group(1) if cuda else None)


def list_gpus() -> tuple[Gpu, ...]:
    """All GPUs of this machine, also hidden ones; empty without one. Takes up to a second."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if listed.returncode:
        return ()
    return tuple(filter(None, map(_parsed, listed.stdout.splitlines())))


def _parsed(line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    try:
        index, name, driver, free_mib, total_mib, capability = fields
        major, minor = capability.split(".")
        free_bytes, total_bytes = int(free_mib) << 20, int(total_mib) << 20
        return Gpu(int(index), name, driver, free_bytes, total_bytes, (int(major), int(minor)))
    except ValueError:  # a card that does not tell one of them
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library reports that a GPU's memory is full, by whatever class."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


@contextmanager
def full_memory_named(what: str) -> Iterator[None]:
    """Name the GPU where a library runs out of its memory in this block.

    Raises:
        WorkerError: it did; :func:`full_memory_message` is its text.
    """
    try:
        yield
    except RuntimeError as e:
        if not is_out_of_memory(e):
            raise
        raise WorkerError(full_memory_message(what, e)) from e


def full_memory_message(what: str, error: BaseException) -> str:
    """One line for ``error``, which :func:`is_out_of_memory` knows: GPU, free and total memory, and advice.

    ``what`` was computed.
    """
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return (
        f"{what}: no memory is left on {gpu_memory_in_words()}; the library said: {said}; end other work on "
        f"this GPU, give the process a whole GPU (gpus = 1), or let it hold less (runtime.extract.batch_s, "
        f"micro_batches of the training, gradient_checkpointing)"
    )


def gpu_memory_in_words() -> str:
    """The memory of this process's GPU in words, as far as somebody tells."""
    torch = sys.modules.get("torch")
    try:
        if torch is None:
            raise RuntimeError("PyTorch is not loaded")
        index = int(torch.cuda.current_device())
        free, total = torch.cuda.mem_get_info(index)
        held = torch.cuda.memory_reserved(index)
    except (RuntimeError, AssertionError, ValueError):
        # A GPU that is full has no room for the context that PyTorch asks with.
        gpus = list_gpus()
        told = ", ".join(f"GPU {g.index}: {_free(g.free_bytes, g.total_bytes)}" for g in gpus)
        return told or "the GPU, whose memory nobody tells"
    foreign = total - free - held
    others = (
        f", {foreign / _GIB:.1f} GiB held by other processes"
        if foreign > _FOREIGN_SHARE * total
        else ""
    )
    return f"GPU {index}: {_free(free, total)}, {held / _GIB:.1f} GiB held by this process{others}"


def _free(free_bytes: int, total_bytes: int) -> str:
    return f"{free_bytes / _GIB:.1f} GiB free of {total_bytes / _GIB:.1f} GiB"
