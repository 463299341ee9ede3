"""Ingest of a corpus in any layout, and the plain loop that it is compared with."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from benchmarks.harness.child import Child
from benchmarks.harness.cpu_time import CpuOfTree, CpuSample, own_cpu_s
from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.rounds import rate
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import CorpusConfig, RuntimeConfig, WorkersConfig
from gmp_atl_dist.console import Bar, Reporter
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context, run_and_seal
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import part_path
from gmp_atl_dist.tags import Tags

_WHAT = "hours of audio per hour and core"


@dataclass(frozen=True)
class Ingested:
    """One measurement.

    Attributes:
        audio_h: hours of audio, at 16 kHz.
        core_h: hours of wall time, times cores.
        steady_audio_h: hours of audio that were stored after the first part; 0 where there are no parts.
        steady_core_h: hours of wall time from the first stored part to the last, times cores.
        start_s: seconds to the first stored part.
        cpu_h: hours of CPU time of all processes, also of Ray; 0 where it was not measured.
        steady_cpu_h: the same from the first stored part to the last.
        workers_cpu_h: of the workers of Ray alone, from the first stored part to the last.
    """

    audio_h: float
    core_h: float
    steady_audio_h: float = 0.0
    steady_core_h: float = 0.0
    start_s: float = 0.0
    cpu_h: float = 0.0
    steady_cpu_h: float = 0.0
    workers_cpu_h: float = 0.0

    @property
    def rate(self) -> float:
        """Hours of audio per hour and core, with the start of the workers."""
        return rate(self.audio_h, self.core_h, _WHAT)

    @property
    def steady_rate(self) -> float:
        """The same without the start: from the first stored part to the last."""
        return rate(self.steady_audio_h, self.steady_core_h, f"{_WHAT}, after the first part")


def plain_loops(folder: str, processes: int) -> Ingested:
    """The plain loop in some processes at the same time, because all other subjects fill as many cores."""
    share = [partial(plain_loop, folder, first, processes) for first in range(processes)]
    running = [Child(call, threads=1) for call in share]
    done = [child.result() for child in running]
    audio_h, core_h, cpu_h = (
        sum(getattr(one, name) for one in done) for name in ("audio_h", "core_h", "cpu_h")
    )
    return Ingested(audio_h, core_h, cpu_h=cpu_h)


def plain_loop(folder: str, first: int = 0, step: int = 1) -> Ingested:
    """Read, decode, resample and round the recordings ``first``, ``first + step``, ..., in this thread."""
    paths = sorted(Path(folder).glob("*.wav"))[first::step]
    samples = 0
    started_s, used_s = time.perf_counter(), own_cpu_s()
    for path in paths:
        wave, rate_hz = sf.read(io.BytesIO(path.read_bytes()), dtype="float64", always_2d=True)
        mono = soxr.resample(wave.mean(axis=1), rate_hz, SAMPLE_RATE_HZ, quality="VHQ")
        samples += len(np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16))
    took_h = (time.perf_counter() - started_s) / 3600
    cpu_h = (own_cpu_s() - used_s) / 3600
    return Ingested(samples / SAMPLE_RATE_HZ / 3600, took_h, cpu_h=cpu_h)


class _Timed(Reporter):
    """Notes when the result of each part arrives, and the CPU time until then."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.arrived: dict[str, tuple[float, CpuSample]] = {}
        self.cpu = CpuOfTree()

    @contextmanager
    def bar(self, tags: Tags, detail: str = "") -> Iterator[Bar]:
        yield _Noting(self)


class _Noting:
    def __init__(self, notes: _Timed) -> None:
        self._notes = notes

    def update(self, done: int, total: int, note: str = "", part: str = "", **_: object) -> None:
        if part:
            self._notes.arrived[part] = (time.perf_counter(), self._notes.cpu.sample())


def ingest(corpus: str, adapter: str, root: str, workers: int, part_audio_s: float) -> Ingested:
    """Ingest the recordings at the URI ``corpus`` into the root at the URI ``root``."""
    settings = RuntimeConfig(corpus=corpus, root=root, ingest=WorkersConfig(workers=workers))
    store, source, reporter = Store.open(root), Store.open(corpus), _Timed()
    config = CorpusConfig(adapter=adapter, part_audio_s=part_audio_s)
    with local_ray(workers):
        context = Context(store, source, settings, reporter, RayConnection(settings))
        started_s, before = time.perf_counter(), reporter.cpu.sample()
        artifact = run_and_seal(Ingest(config, source), context)
        took_s = time.perf_counter() - started_s
    arrived = sorted(reporter.arrived, key=lambda name: reporter.arrived[name][0])
    audio_h = {name: artifact.receipts[part_path(name)].audio_s / 3600 for name in arrived}
    (first_s, first), (last_s, last) = (reporter.arrived[arrived[i]] for i in (0, -1))
    return Ingested(
        sum(audio_h.values()),
        took_s / 3600 * workers,
        sum(audio_h[name] for name in arrived[1:]),
        (last_s - first_s) / 3600 * workers,
        first_s - started_s,
        (last.everything_s - before.everything_s) / 3600,
        (last.everything_s - first.everything_s) / 3600,
        (last.workers_s - first.workers_s) / 3600,
    )
