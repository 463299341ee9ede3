"""What clustering asks of a GPU: its devices, free memory, copies beside its work, FAISS's resources.

A CPU device has the same functions, so the code above is the same for both and runs without a GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import faiss
import numpy as np
import torch

from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.device import faiss_gpus
from gmp_atl_dist.errors import ModelError

_GPU_BLOCK_ROWS = 65_536
_CPU_BLOCK_ROWS = 8_192
_IN_FLIGHT = 2
"""Blocks that a device holds beside the resident ones: one that it works on, and one that is copied."""


def engine_devices(engine: Engine, gpus: int) -> tuple[torch.device, ...]:
    """The first ``gpus`` GPUs that this process sees; with 0, the CPU.

    Raises:
        ModelError: PyTorch sees fewer GPUs, or, for its engine, FAISS does.
    """
    if not gpus:
        return (torch.device("cpu"),)
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if visible < gpus:
        raise ModelError(
            f"PyTorch sees {visible} GPUs, {gpus} are asked for; install a PyTorch for CUDA on workers "
            f"with that many, or set the stage's gpus to 0"
        )
    if engine == "faiss" and (visible := faiss_gpus()) < gpus:
        raise ModelError(
            f"FAISS sees {visible} GPUs, {gpus} are asked for; install the gpu extra (faiss-gpu-cu12) "
            f'on workers with that many, set runtime.cluster.engine = "torch" (or "auto"), or set the '
            f"stage's gpus to 0"
        )
    return tuple(torch.device("cuda", number) for number in range(gpus))


def default_block_rows(on: Sequence[torch.device]) -> int:
    """Frames that an engine on these devices is given at a time. Distances may differ in the last bit with
    it, so it follows from the kind of the devices alone."""
    return _CPU_BLOCK_ROWS if all(device.type == "cpu" for device in on) else _GPU_BLOCK_ROWS


def free_bytes(device: torch.device, share: float = 1.0) -> int:
    """Memory of a GPU that frames may stay in; 0 on a CPU, where the reader of frames keeps them.

    ``share`` is the part of the GPU that this process was given. A tenth of it is left free.
    """
    if device.type == "cpu":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = free + torch.cuda.memory_reserved(device) - allocated
    return int(min(unused, share * total - allocated) - share * total / 10)


def empty_pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array in pinned memory, which is copied to a GPU at full speed and beside its work."""
    like = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=like, pin_memory=True).numpy()


class Copier:
    """Copies frames to one device while it works on those before.

    Call :meth:`to_device` for a block, start all work on it, and then call :meth:`started`. On a CPU the
    tensor is a view of the array.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copies = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._started: deque[Any] = deque(maxlen=_IN_FLIGHT)
        self._copying: deque[tuple[Any, torch.Tensor]] = deque()

    def to_device(self, x_MD: np.ndarray) -> torch.Tensor:
        self.copies += 1
        # PyTorch has no tensors that cannot be written to.
        host_MD = torch.from_numpy(x_MD if x_MD.flags.writeable else x_MD.copy())
        if self._stream is None:
            return host_MD
        if len(self._started) >= _IN_FLIGHT:
            self._started.popleft().synchronize()
        while self._copying and self._copying[0][0].query():
            self._copying.popleft()
        work = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            # Memory that is pinned already is returned as it is.
            pinned_MD = host_MD.pin_memory()
            there_MD = pinned_MD.to(self.device, non_blocking=True)
        # The allocator does not know that a part of an array is being copied, so the array is held.
        self._copying.append((self._stream.record_event(), pinned_MD))
        work.wait_stream(self._stream)
        # The memory is not given to another tensor before the work on it is done.
        there_MD.record_stream(work)
        return there_MD

    def started(self) -> None:
        """All work on the block that was copied last has been started."""
        if self._stream is not None:
            self._started.append(torch.cuda.current_stream(self.device).record_event())


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Start kernels on this device."""
    if device.type == "cpu":
        yield
        return
    with torch.cuda.device(device):
        yield


def splits_products(device: torch.device) -> bool:
    """The device multiplies in TF32, many times faster than in fp32 (compute capability 8.0 and above)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def tf32_products() -> Iterator[None]:
    """fp32 products may round their factors to TF32 meanwhile; on a CPU nothing changes."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


def faiss_nearest(
    x_MD: torch.Tensor, centroids_KD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 [M] squared distances and int64 [M] rows of the nearest centroids, by FAISS on their device."""
    if x_MD.device.type == "cpu":
        squared_M1, ids_M1 = faiss.knn(x_MD.numpy(), centroids_KD.numpy(), 1)
        return torch.from_numpy(squared_M1[:, 0]), torch.from_numpy(ids_M1[:, 0])
    # Lets FAISS take tensors, and makes it wait for PyTorch's stream.
    import_module("faiss.contrib.torch_utils")
    number = x_MD.device.index
    knn: Any = faiss.knn_gpu  # pyright: ignore[reportAttributeAccessIssue]
    squared_M1, ids_M1 = knn(faiss_resources(number), x_MD, centroids_KD, 1, device=number)
    return squared_M1[:, 0], ids_M1[:, 0]


@cache
def faiss_resources(number: int) -> Any:
    """FAISS's resources on a GPU: made once per process, because making them takes a second."""
    return faiss.StandardGpuResources()  # pyright: ignore[reportAttributeAccessIssue]
