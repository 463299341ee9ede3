"""Asks for CUDA: device, precision, memory, collective backend, FAISS; `transfers.py` has its streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from gmp_atl_dist.errors import ModelError

if TYPE_CHECKING:
    import faiss
    import torch

Accelerator = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
"""What a person may ask for; auto: a GPU where there is one."""


_chosen: list[Accelerator] = []
"""What :func:`choose_accelerator` was told last."""


def accelerator() -> Accelerator:
    """The kind of device that this process computes on."""
    return _chosen[-1] if _chosen else _found()


@cache
def _found() -> Accelerator:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_accelerator(kind: Accelerator) -> None:
    """Compute on this kind of device from now on, in the whole process.

    Raises:
        ModelError: there is no GPU that this installation of PyTorch can use.
    """
    if kind == "cuda" and _found() == "cpu":
        raise ModelError(
            "device cuda: PyTorch sees no GPU here; use the device cpu, or install a PyTorch for CUDA on a "
            "machine with a GPU"
        )
    _chosen[:] = [kind]


def choose_device(choice: DeviceChoice) -> None:
    """As :func:`choose_accelerator`; auto leaves the choice to this module."""
    if choice != "auto":
        choose_accelerator(choice)


def wants_gpu(choice: DeviceChoice) -> bool:
    """Whether work with this choice takes a GPU, if this machine is like the one that it runs on."""
    return choice == "cuda" or (choice == "auto" and has_gpu())


def has_gpu() -> bool:
    """This process computes on a GPU."""
    return accelerator() == "cuda"


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs of this machine, as its driver lists them; empty without one.

    torch is not imported, so a process that computes nothing can ask. It takes up to a second.
    """
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if listed.returncode:
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip())


def on_gpu(tensor: torch.Tensor) -> bool:
    """The tensor lies in a GPU's memory."""
    return tensor.is_cuda


def free_cached_memory() -> None:
    """Give memory that PyTorch holds for later back to the GPU; nothing happens without a GPU."""
    import torch

    torch.cuda.empty_cache()


def gpu_peak_bytes(compute: Callable[[], object]) -> int:
    """Call ``compute``, and return the most GPU memory that was allocated meanwhile."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    compute()
    return torch.cuda.max_memory_allocated()


def gpu_free_bytes() -> int:
    """Free memory of this process's GPU."""
    import torch

    return torch.cuda.mem_get_info()[0]


def has_flash_attention(dtype: torch.dtype) -> bool:
    """This process computes on a GPU whose attention kernels take rows of this type without padding."""
    import torch

    if not has_gpu() or dtype not in (torch.float16, torch.bfloat16):
        return False
    # Flash attention needs Ampere. The function came with PyTorch 2.10.
    return torch.cuda.get_device_capability() >= (8, 0) and (
        find_spec("torch.nn.attention.varlen") is not None
    )


def torch_device() -> torch.device:
    import torch

    return torch.device(accelerator())


def collective_backend() -> Literal["gloo", "nccl"]:
    return "nccl" if has_gpu() else "gloo"


def use_bf16() -> bool:
    """True on GPUs that have bf16. On a CPU it is slower than fp32 (AVX2) and less exact."""
    import torch

    return has_gpu() and torch.cuda.is_bf16_supported()


def autocast() -> AbstractContextManager[object]:
    """bf16 autocast on a GPU, nothing on a CPU."""
    import torch

    return torch.autocast("cuda", dtype=torch.bfloat16) if use_bf16() else nullcontext()


def pin_threads(threads: int) -> None:
    """Limit this process to ``threads`` cores in every library that would otherwise use all of them.

    Several workers with unlimited BLAS threads on few cores cost 5 to 9 times the CPU time. MKL is set to
    strict reproducibility: a row of a product then has the same bits for any number of rows and threads.
    On this kind of product that costs nothing. Call this before the first use of MKL.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # A process that imports torch later reads the environment. Some processes never import it.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def pin_faiss_threads() -> None:
    """Limit FAISS to the threads of :func:`pin_threads`; otherwise it uses all cores of the machine."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def one_faiss_thread() -> None:
    """Let FAISS compute in the calling thread alone. OpenMP keeps this setting per thread."""
    import faiss

    faiss.omp_set_num_threads(1)


def faiss_gpus() -> int:
    """Number of GPUs that this build of FAISS can use; 0 for the CPU build."""
    import faiss

    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0


def faiss_on_gpus(index: faiss.Index, gpus: int) -> faiss.Index:
    """A FAISS index on ``gpus`` GPUs. Each GPU holds a copy and answers a share of the queries.

    Raises:
        ModelError: FAISS sees fewer GPUs.
    """
    import faiss

    visible = faiss_gpus()
    if visible < gpus:
        raise ModelError(
            f"FAISS sees {visible} GPUs, {gpus} are asked for; install the gpu extra (faiss-gpu-cu12) "
            f"on workers with that many, or set the stage's gpus to 0"
        )
    return faiss.index_cpu_to_gpus_list(index, gpus=list(range(gpus)))


def gpu_count() -> int:
    """Number of GPUs that this process can see."""
    import torch

    return torch.cuda.device_count() if has_gpu() else 0
