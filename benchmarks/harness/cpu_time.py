"""CPU time of processes: unlike wall time, it hardly depends on what else a machine does."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass

import psutil

_WORKERS = "ray::"


def own_cpu_s() -> float:
    """CPU seconds of this process so far, and of those of its children that have ended."""
    used = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class CpuSample:
    """CPU seconds so far, of this process and its descendants, and of the workers of Ray among them."""

    everything_s: float
    workers_s: float


class CpuOfTree:
    """CPU time of this process and all its descendants: a driver, Ray and its workers.

    A process that has ended counts as far as it was seen, so sample while the workers are there.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], tuple[float, bool]] = {}

    def sample(self) -> CpuSample:
        """What was used so far."""
        here = psutil.Process()
        for process in (here, *here.children(recursive=True)):
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                title = " ".join(process.cmdline()[:1])
                key = (process.pid, process.create_time())
                self._seen[key] = (times.user + times.system, title.startswith(_WORKERS))
        seen = self._seen.values()
        return CpuSample(sum(s for s, _ in seen), sum(s for s, worker in seen if worker))
