"""The device of a part of ``benchmarks.gpu``: its card, its matmul rate, its memory, its clock.

Everything works on a CPU as well, where memory and busy share are None. FLOP/s count a multiply and an add
as two.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from benchmarks.harness.parts import Rows

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda"]
_MATMUL_SIZE = {"cuda": 8192, "cpu": 256}
_ROUNDS = 7
_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Place:
    """Where a part computes, and how much.

    Attributes:
        device: of the part. ``cpu`` is the fallback: the same code at tiny size.
        seconds: that the part may take; it leaves out its last figures rather than take longer.
    """

    device: DeviceName
    seconds: float

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def choose(self) -> torch.device:
        """Make the package compute here in this process, and return the device."""
        import torch

        from gmp_atl_dist.device import choose_accelerator

        choose_accelerator(self.device)
        return torch.device(self.device)


@dataclass(frozen=True)
class Subject:
    """A part of the benchmark: a function of a module of ``benchmarks.subjects``, imported where it runs.

    Attributes:
        seconds: that it may take, of the 25 minutes of all.
    """

    module: str
    seconds: float
    function: str = "measure"

    def __call__(self, place: Place, rows: Rows) -> None:
        module = import_module(f"benchmarks.subjects.{self.module}")
        getattr(module, self.function)(place, rows)


@dataclass(frozen=True)
class Card:
    """What a figure of a GPU must be read with; without a GPU the name is ``CPU``."""

    name: str
    device: DeviceName
    memory_gib: float | None
    capability: str | None
    cuda: str | None
    torch: str


def find_card() -> Card:
    """The first GPU that PyTorch sees, or the CPU. Call it in a process of its own."""
    import torch

    if not torch.cuda.is_available():
        return Card("CPU", "cpu", None, None, torch.version.cuda, torch.__version__)
    facts = torch.cuda.get_device_properties(0)
    return Card(
        facts.name,
        "cuda",
        round(facts.total_memory / 2**30, 1),
        f"{facts.major}.{facts.minor}",
        torch.version.cuda,
        torch.__version__,
    )


def finish(device: torch.device) -> None:
    """Wait for what was given to the device."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], device: torch.device, rounds: int = _ROUNDS) -> float:
    """Median seconds of a call, after one that does not count."""
    call()
    finish(device)
    taken: list[float] = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        call()
        finish(device)
        taken.append(time.perf_counter() - started_s)
    return statistics.median(taken)


def matmul_tflops(device: torch.device, dtype: torch.dtype, *, tf32: bool = False) -> float:
    """Median rate of a large square product in this process, 1e12 FLOP/s."""
    import torch

    size = _MATMUL_SIZE[device.type]
    x = torch.randn(size, size, device=device, dtype=dtype)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        seconds = seconds_of(lambda: x @ x, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * size**3 / seconds / 1e12


def working_tflops(device: torch.device) -> float:
    """The matmul rate in the type that the package computes in on this device: bf16 or fp32."""
    import torch

    from gmp_atl_dist.device import use_bf16

    return matmul_tflops(device, torch.bfloat16 if use_bf16() else torch.float32)


def forget_peak_memory(device: torch.device) -> None:
    """Count :func:`peak_gib` from now on."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float | None:
    """Most memory that tensors took since :func:`forget_peak_memory`, GiB; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


class Busy:
    """The share of the time in which kernels ran, by NVML's samples; see :func:`watched`."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self.note = ""

    @property
    def share(self) -> float | None:
        """None where NVML cannot be asked, or nothing was sampled; :attr:`note` says why."""
        return statistics.mean(self.samples) / 100 if self.samples else None


@contextmanager
def watched(device: torch.device) -> Iterator[Busy]:
    """Sample how busy the GPU is meanwhile, 20 times a second."""
    import torch

    busy = Busy()
    if device.type != "cuda":
        busy.note = "no GPU"
        yield busy
        return
    done = threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_S):
            try:
                busy.samples.append(float(torch.cuda.utilization()))
            except Exception as e:  # pynvml is no dependency; its absence is no failure of the part
                busy.note = f"NVML cannot be asked: {type(e).__name__}: {e}"
                return

    thread = threading.Thread(target=sample, name="busy", daemon=True)
    thread.start()
    try:
        yield busy
    finally:
        done.set()
        thread.join()
