"""Ingest of a table of loose files, and the plain loop that it is compared with."""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.rounds import rate
from benchmarks.harness.s3_requests import counted_requests
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import CorpusConfig, RuntimeConfig, WorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context, run_and_seal
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

_CLIP_S = (1.5, 6.5)
_SPEAKERS = 10
_CORPUS = CorpusConfig(adapter="table", part_audio_s=120)


@dataclass(frozen=True)
class Ingested:
    """One measurement.

    Attributes:
        audio_h: hours of audio, at 16 kHz.
        core_h: hours of wall time, times workers.
        requests: to the object store; 0 without one.
    """

    audio_h: float
    core_h: float
    requests: int = 0

    @property
    def rate(self) -> float:
        """Hours of audio per hour and core."""
        return rate(self.audio_h, self.core_h, "hours of audio per hour and core")


def write_clips(folder: str, clips: int, rate_hz: int) -> None:
    """Recordings and ``manifest.csv``: seeded noise in syllables, so that no two are equal."""
    lines = ["id,path,speaker,gender,emotion"]
    rng = np.random.default_rng(0)
    for i in range(clips):
        samples = round(rng.uniform(*_CLIP_S) * rate_hz)
        loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate_hz)
        sf.write(f"{folder}/{i:05d}.wav", 0.1 * loudness * rng.normal(size=samples), rate_hz)
        gender, emotion = ("female", "male")[i % 2], ("happy", "sad")[i // _SPEAKERS % 2]
        lines.append(f"{i:05d},{i:05d}.wav,s{i % _SPEAKERS},{gender},{emotion}")
    Path(folder, "manifest.csv").write_text("\n".join(lines) + "\n")


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


def ingest_folder(folder: str, workers: int) -> Ingested:
    """Ingest the recordings of ``folder`` into a new root beside them."""
    root = Path(folder) / "root"
    try:
        return _ingested(folder, str(root), workers, Counter())
    finally:
        shutil.rmtree(root, ignore_errors=True)


def ingest_s3(folder: str, workers: int) -> Ingested:
    """Upload the recordings to an S3 server of this machine, which is not measured, and ingest them there."""
    with counted_requests() as (uri, requests):
        store = Store.open(f"{uri}/corpus")
        for path in sorted(Path(folder).glob("*.*")):
            store.put(path.name, path.read_bytes())
        return _ingested(f"{uri}/corpus", f"{uri}/root", workers, requests)


def _ingested(corpus: str, root: str, workers: int, requests: Counter[str]) -> Ingested:
    settings = RuntimeConfig(corpus=corpus, root=root, ingest=WorkersConfig(workers=workers))
    store, source = Store.open(root), Store.open(corpus)
    with local_ray(workers):
        connection = RayConnection(settings)
        context = Context(store, source, settings, Reporter(False), connection)
        before = requests.total()
        started_s = time.perf_counter()
        artifact = run_and_seal(Ingest(_CORPUS, source), context)
        took_h = (time.perf_counter() - started_s) / 3600
        asked = requests.total() - before
    audio_h = sum(u.num_samples for u in read_utterances(artifact)) / SAMPLE_RATE_HZ / 3600
    return Ingested(audio_h, took_h * workers, asked)
