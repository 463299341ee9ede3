"""Structured vectors as stored features of a corpus that has no audio, and fits of them on a local Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.kmeans import structured
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample
from gmp_atl_dist.config import ClusterConfig, ClusterWorkersConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.inference.stored_frames import FrameSelection
from gmp_atl_dist.records import Fold, StoredUtterance, utterances_to_table
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import RayConnection as ClusterStage
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.features import UtteranceFrames, put_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.training_set import TrainingSet

STORED_LAYER = 9
_FRAMES_AN_UTTERANCE = 250
_UTTERANCES_A_PART = 120
_FOLD = Fold("bench", ("a",), ("b",))
_ALL = FrameSample(UtteranceSample(1.0, 0))


def store_structured(root: Path, frames: int) -> tuple[Artifact, Artifact]:
    """A corpus and its features, in parts of 30,000 frames; about ``frames`` of them."""
    store = Store.open(str(root))
    count = max(1, frames // _FRAMES_AN_UTTERANCE)
    samples = (_FRAMES_AN_UTTERANCE - 1) * 320 + 400
    listed = [
        StoredUtterance(f"u{i:08d}", "a", "female", "sad", "", "", samples, "", "none", i)
        for i in range(count)
    ]
    corpus = ArtifactWriter(store, ArtifactKey("ingest", "c" * 64))
    corpus.put_part(INDEX_PART, utterances_to_table(listed))
    features = ArtifactWriter(store, ArtifactKey("extract", "f" * 64))
    for number, start in enumerate(range(0, count, _UTTERANCES_A_PART)):
        some = listed[start : start + _UTTERANCES_A_PART]
        x_MD = structured(len(some) * _FRAMES_AN_UTTERANCE, seed=number).astype(np.float16)
        rows = [
            UtteranceFrames(u.utterance_id, x_TD)
            for u, x_TD in zip(some, np.split(x_MD, len(some)), strict=True)
        ]
        put_features(features, f"part-{number:05d}", STORED_LAYER, rows, audio_s=0.0)
    return (
        corpus.seal(version=1, science={}, inputs={}, notes={"emotions": '["sad"]'}),
        features.seal(version=1, science={}, inputs={}),
    )


def selection(corpus: Artifact, features: Artifact) -> FrameSelection:
    return FrameSelection(corpus, features, _FOLD.training_speakers(), _ALL, False, None)


@dataclass
class RayRun:
    """What a fit took: CPU of all of Ray's processes and the driver, and of the workers alone."""

    cpu_s: float = 0.0
    workers_cpu_s: float = 0.0
    peak_bytes: int = 0
    codebooks: list[str] = field(default_factory=list)


def fit_on_ray(
    corpus: Artifact,
    features: Artifact,
    *,
    workers: int,
    k: int,
    iterations: int,
    memory_gib: float = 4.0,
) -> RayRun:
    """Fit one scale on a Ray of its own, without a checkpoint of an earlier run."""
    import ray

    settings = RuntimeConfig(cluster=ClusterWorkersConfig(workers=workers, memory_gib=memory_gib))
    config = ClusterConfig.model_validate(
        {
            "scales": [{"layer": STORED_LAYER, "k": k}],
            "iterations": iterations,
            "tolerance": 0,
            "sample_frames": "all",
            "stability_frames": 0,
        }
    )
    store = corpus.store
    for kind in ("codebook", "cluster"):
        store.delete(f"artifacts/{kind}")
    # Four workers on fewer cores: what they take is asked for, not how soon they are done.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    context = Context(store, store, settings, Reporter(False), RayConnection(settings))
    stage = ClusterStage(config, features, TrainingSet(corpus, _FOLD.training_speakers()), _ALL)
    try:
        with _watched() as run:
            out = ArtifactWriter(store, stage.key)
            stage.run(context, out)
            made = out.seal(version=stage.version, science={}, inputs={})
        run.codebooks = [book.fingerprint for book in read_codebooks(made)]
        return run
    finally:
        ray.shutdown()


@contextmanager
def _watched() -> Iterator[RayRun]:
    """Reads the clocks of this process and all below it, five times a second."""
    run, stop = RayRun(), threading.Event()
    before, last, workers, peaks = _clocks(), {}, {}, {}

    def watch() -> None:
        while not stop.wait(0.2):
            last.update(_clocks())
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess, OSError):
                    if any(w.startswith("ray::PoolProcess") for w in process.cmdline()):
                        workers[process.pid] = last.get(process.pid, 0.0)
                        peaks[process.pid] = _peak_bytes(process.pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield run
    finally:
        stop.set()
        thread.join()
        last.update(_clocks())
        run.cpu_s = sum(s - before.get(pid, 0.0) for pid, s in last.items())
        run.workers_cpu_s = sum(workers.values())
        run.peak_bytes = max(peaks.values(), default=0)


def _clocks() -> dict[int, float]:
    found: dict[int, float] = {}
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def _peak_bytes(pid: int) -> int:
    """The most resident memory that the process ever had, as Linux keeps it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
