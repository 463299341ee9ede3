"""The machine of a measurement: processor, cores, rate of a matrix product, versions."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness.child import run_alone

_SIZE = 2048
_PRODUCTS = 7
_PACKAGES = ("gmp_atl_dist", "torch", "numpy", "transformers", "ray", "deepspeed", "pyarrow")
_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12")


@dataclass(frozen=True)
class Machine:
    """What a figure must be read with.

    Attributes:
        cpu_model: as the system calls the processor.
        cores: that this process may use.
        accelerator: what the package computes on, cpu or cuda.
        matmul_gflops: rate of a 2048-cubed float32 product on all cores, GFLOP/s.
        versions: of Python and of the packages that do the work; None if not installed.
    """

    cpu_model: str
    cores: int
    accelerator: str
    matmul_gflops: float
    versions: dict[str, str | None]

    def text(self) -> str:
        """One line for a person."""
        return (
            f"machine: {self.cores} cores of {self.cpu_model}, {self.accelerator}, matrix product "
            f"{self.matmul_gflops:.0f} GFLOP/s (fp32, {_SIZE} cubed)"
        )


def this_machine() -> Machine:
    """Measured in a process of its own, so that the caller loads no library for it."""
    return run_alone(partial(_describe, usable_cores()), threads=usable_cores())


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def matmul_gflops(clock: Callable[[], float] = time.perf_counter) -> float:
    """Median rate of a 2048-cubed float32 product in this process with its threads, GFLOP/s by ``clock``."""
    import torch

    x = torch.randn(_SIZE, _SIZE)
    seconds: list[float] = []
    for _ in range(_PRODUCTS):
        started_s = clock()
        torch.mm(x, x)
        seconds.append(clock() - started_s)
    return 2 * _SIZE**3 / statistics.median(seconds) / 1e9


def _describe(cores: int) -> Machine:
    from gmp_atl_dist.device import accelerator

    versions = {"python": platform.python_version()}
    versions |= {name: _version(name) for name in _PACKAGES}
    versions["faiss"] = next(filter(None, map(_version, _FAISS)), None)
    return Machine(_cpu_model(), cores, accelerator(), round(matmul_gflops(), 1), versions)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
