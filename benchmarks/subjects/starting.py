"""The part of ``benchmarks.startup`` that starts gangs on a Ray of its own."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass

from benchmarks.harness.cpu_time import CpuOfTree
from gmp_atl_dist import runtime
from gmp_atl_dist.config import RuntimeConfig, TrainWorkersConfig
from gmp_atl_dist.scheduling.preloaded import preloaded
from gmp_atl_dist.store.filesystem import Store

_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Start:
    """Wall and CPU seconds of a gang that only starts and ends."""

    wall_s: float
    cpu_s: float


def start_gangs(rounds: int, forked: bool) -> list[Start]:
    """``rounds`` gangs one after another; one before them is not counted."""
    settings = RuntimeConfig(fork_workers=forked)
    with (
        tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder,
        runtime.RayConnection(settings, preload=preloaded(settings)) as connection,
    ):
        connection.open()
        cpu = CpuOfTree()
        return [_start_gang(folder, number, cpu) for number in range(rounds + 1)][1:]


def _start_gang(folder: str, number: int, cpu: CpuOfTree) -> Start:
    ended = threading.Event()

    def sample() -> None:
        # A process that has ended tells nothing any more.
        while not ended.wait(_SAMPLE_S):
            cpu.sample()

    before_s, started_s = cpu.sample().everything_s, time.perf_counter()
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        runtime.train(
            _import_all,
            None,
            name=f"start{number}",
            store=Store.open(folder),
            config=TrainWorkersConfig(workers=2),
        )
    finally:
        ended.set()
        sampler.join()
    return Start(time.perf_counter() - started_s, cpu.sample().everything_s - before_s)


def _import_all(_: None, gang: runtime.Gang) -> None:
    import gmp_atl_dist.recipes.finetune
    import gmp_atl_dist.training.deepspeed_on_cpu
    import gmp_atl_dist.training.loop  # noqa: F401
