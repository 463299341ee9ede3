"""CPU time and memory of this process and of those that it started. Linux alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

MIB = 1 << 20
GIB = 1 << 30


def descendants() -> list[psutil.Process]:
    """All processes below this one."""
    return psutil.Process().children(recursive=True)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far; 0 of a process that has ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def descendants_cpu_s(names: tuple[str, ...] = ()) -> float:
    """CPU seconds of the living processes below this one, or of those with one of ``names``."""
    total_s = 0.0
    for process in descendants():
        with suppress(psutil.NoSuchProcess):
            if not names or process.name() in names:
                total_s += cpu_seconds(process)
    return total_s


def forget_peak() -> None:
    """Count :func:`peak_bytes` of this process from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(pid: int | None = None) -> int:
    """The most resident memory that a process (this one by default) had since it began, or since
    :func:`forget_peak`; 0 if it has ended."""
    status = Path(f"/proc/{os.getpid() if pid is None else pid}/status")
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0
