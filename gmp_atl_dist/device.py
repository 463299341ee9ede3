"""The only place that asks for a GPU: device, precision, collective backend, FAISS build."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Literal

from gmp_atl_dist.errors import ModelError

if TYPE_CHECKING:
    import faiss
    import torch

Accelerator = Literal["cpu", "cuda"]


@cache
def accelerator() -> Accelerator:
    """What this process computes on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_device() -> torch.device:
    import torch

    return torch.device(accelerator())


def collective_backend() -> Literal["gloo", "nccl"]:
    return "nccl" if accelerator() == "cuda" else "gloo"


def use_bf16() -> bool:
    """bf16 on GPUs that have it; on a CPU it is slower than fp32 (AVX2) and less exact."""
    import torch

    return accelerator() == "cuda" and torch.cuda.is_bf16_supported()


def autocast() -> AbstractContextManager[object]:
    """bf16 autocast on a GPU, nothing on a CPU."""
    import torch

    return torch.autocast("cuda", dtype=torch.bfloat16) if use_bf16() else nullcontext()


def pin_threads(threads: int) -> None:
    """Give this process ``threads`` cores in every library that would otherwise take them all.

    Unpinned BLAS pools in several workers on few cores cost 5-9 times the CPU. MKL is asked for its
    strict reproducibility, in which a row of a product has the same bits whatever the number of
    rows or threads; on this kind of product that costs nothing. It must come before MKL's first use.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Whoever loads it later reads the environment; some processes never do.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def pin_faiss_threads() -> None:
    """Give FAISS the threads that :func:`pin_threads` chose; it asks the machine otherwise."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def one_faiss_thread() -> None:
    """Let FAISS work in the calling thread alone; OpenMP keeps that number a thread."""
    import faiss

    faiss.omp_set_num_threads(1)


def faiss_gpus() -> int:
    """GPUs that this build of FAISS can use; 0 of the CPU build."""
    import faiss

    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0


def faiss_on_gpus(index: faiss.Index, gpus: int) -> faiss.Index:
    """A FAISS index on ``gpus`` GPUs: a copy on each, and each gets its share of the queries.

    Raises:
        ModelError: FAISS sees fewer.
    """
    import faiss

    found = faiss_gpus()
    if found < gpus:
        raise ModelError(
            f"FAISS sees {found} GPUs, {gpus} are asked for; install the gpu extra (faiss-gpu-cu12) "
            f"on workers with that many, or set the stage's gpus to 0"
        )
    return faiss.index_cpu_to_gpus_list(index, gpus=list(range(gpus)))
