"""The only module that asks for CUDA: device, precision, GPU memory, collective backend, FAISS build."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Literal

from gmp_atl_dist.errors import ModelError

if TYPE_CHECKING:
    import faiss
    import torch

Accelerator = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
"""What a person may ask for; auto: a GPU where there is one."""


_VISIBLE = "CUDA_VISIBLE_DEVICES"
_chosen: list[Accelerator] = []
"""What :func:`choose_accelerator` or :func:`use_gpus` was told last."""
_granted: list[float] = []
"""The GPUs of this process by :func:`use_gpus`; empty where nobody has told."""


def use_gpus(gpus: float) -> None:
    """Compute on what this process was given: on the CPU with 0, else on a GPU.

    Call it before anything asks torch for a GPU, because the driver reads the variable once. Ray leaves
    every GPU of the node visible to a process that asked for none (ray#54868), so 0 hides them here.
    """
    _granted[:] = [gpus]
    _chosen.clear()
    if not gpus:
        os.environ[_VISIBLE] = ""
        _chosen.append("cpu")


def accelerator() -> Accelerator:
    """The kind of device that this process computes on.

    Raises:
        ModelError: this process was given a GPU by :func:`use_gpus`, and PyTorch sees none.
    """
    if _chosen:
        return _chosen[-1]
    found = _found()
    if found == "cpu" and _granted and _granted[-1]:
        from gmp_atl_dist.gpu_state import torch_build

        raise ModelError(
            f"this process was given {_granted[-1]:g} GPUs, and PyTorch sees none ({torch_build()}; "
            f"{_VISIBLE}={os.environ.get(_VISIBLE, 'unset')}); install a PyTorch for CUDA that fits the "
            f"driver (docs/install.md), or set gpus = 0 in the section of the stage"
        )
    return found


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


def torch_device() -> torch.device:
    import torch

    return torch.device(accelerator())


def collective_backend() -> Literal["gloo", "nccl"]:
    return "nccl" if has_gpu() else "gloo"


def use_bf16() -> bool:
    """True on GPUs that compute in bf16. On a CPU it is slower than fp32 (AVX2) and less exact.

    GPUs before compute capability 8 (V100, T4) emulate it, many times slower than fp32. They compute in
    fp32, which is said once: fp16 would need a loss scale and can overflow in HuBERT's encoder.
    """
    if not has_gpu():
        return False
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return True
    _say_fp32()
    return False


@cache
def _say_fp32() -> None:
    import torch

    kind = torch.cuda.get_device_properties(torch.cuda.current_device())
    logging.getLogger(__name__).warning(
        "%s computes in fp32, because it has no bf16 (compute capability %d.%d, bf16 needs 8.0)",
        *(kind.name, kind.major, kind.minor),
    )


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
            f"FAISS sees {visible} GPUs, {gpus} are asked for; install the gpu extra (faiss-gpu, CUDA 12) "
            f"on workers with that many, or set the stage's gpus to 0"
        )
    return faiss.index_cpu_to_gpus_list(index, gpus=list(range(gpus)))


def gpu_count() -> int:
    """Number of GPUs that this process can see."""
    import torch

    return torch.cuda.device_count() if has_gpu() else 0
