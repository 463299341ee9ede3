"""Ingest of a corpus in any layout, and the plain loop that it is compared with."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.rounds import rate
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import CorpusConfig, RuntimeConfig, WorkersConfig
from gmp_atl_dist.console import Bar, Reporter
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context, run_and_seal
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.artifact import part_path
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.tags import Tags

_PART_S = 120.0
"""Seconds of audio in a part, so that each worker has many parts."""
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
    """

    audio_h: float
    core_h: float
    steady_audio_h: float = 0.0
    steady_core_h: float = 0.0
    start_s: float = 0.0

    @property
    def rate(self) -> float:
        """Hours of audio per hour and core, with the start of the workers."""
        return rate(self.audio_h, self.core_h, _WHAT)

    @property
    def steady_rate(self) -> float:
        """The same without the start: from the first stored part to the last."""
        return rate(self.steady_audio_h, self.steady_core_h, f"{_WHAT}, after the first part")


def plain_loop(folder: str) -> Ingested:
    """Read, decode, resample and round every recording, in this thread."""
    paths = sorted(Path(folder).glob("*.wav"))
    samples = 0
    started_s = time.perf_counter()
    for path in paths:
        wave, rate_hz = sf.read(io.BytesIO(path.read_bytes()), dtype="float64", always_2d=True)
        mono = soxr.resample(wave.mean(axis=1), rate_hz, SAMPLE_RATE_HZ, quality="VHQ")
        samples += len(np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16))
    took_h = (time.perf_counter() - started_s) / 3600
    return Ingested(samples / SAMPLE_RATE_HZ / 3600, took_h)


class _Timed(Reporter):
    """Notes when the result of each part arrives."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.arrived_s: dict[str, float] = {}

    @contextmanager
    def bar(self, tags: Tags, detail: str = "") -> Iterator[Bar]:
        yield _Noting(self.arrived_s)


class _Noting:
    def __init__(self, arrived_s: dict[str, float]) -> None:
        self._arrived_s = arrived_s

    def update(self, done: int, total: int, note: str = "", part: str = "", **_: object) -> None:
        if part:
            self._arrived_s[part] = time.perf_counter()


def ingest(corpus: str, adapter: str, root: str, workers: int) -> Ingested:
    """Ingest the recordings at the URI ``corpus`` into the root at the URI ``root``."""
    settings = RuntimeConfig(corpus=corpus, root=root, ingest=WorkersConfig(workers=workers))
    store, source, reporter = Store.open(root), Store.open(corpus), _Timed()
    config = CorpusConfig(adapter=adapter, part_audio_s=_PART_S)
    with local_ray(workers):
        context = Context(store, source, settings, reporter, RayConnection(settings))
        started_s = time.perf_counter()
        artifact = run_and_seal(Ingest(config, source), context)
        took_s = time.perf_counter() - started_s
    arrived = sorted(reporter.arrived_s, key=reporter.arrived_s.__getitem__)
    audio_h = {name: artifact.receipts[part_path(name)].audio_s / 3600 for name in arrived}
    first_s, last_s = (reporter.arrived_s[arrived[i]] for i in (0, -1))
    return Ingested(
        sum(audio_h.values()),
        took_s / 3600 * workers,
        sum(audio_h[name] for name in arrived[1:]),
        (last_s - first_s) / 3600 * workers,
        first_s - started_s,
    )
