"""The fits of ``benchmarks.kmeans`` over stored features: scales together, workers on a Ray, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import psutil

from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.processes import GIB, cpu_seconds, descendants, peak_bytes
from benchmarks.harness.rounds import Spread, interleaved, ratios
from benchmarks.inputs.vectors import DIM, STORED_FOLD, STORED_LAYER, store_structured, structured
from gmp_atl_dist.clustering.initialization import initial_centroids
from gmp_atl_dist.clustering.lloyd import run_fits
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample
from gmp_atl_dist.clustering.state import Fit, Request, State
from gmp_atl_dist.clustering.statistics import ClusterStatistics
from gmp_atl_dist.config import ClusterConfig, ClusterWorkersConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.inference.fitter import Assign, Fitter, FitterArgument
from gmp_atl_dist.inference.stored_frames import FrameSelection
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.cluster import Cluster as ClusterStage
from gmp_atl_dist.stages.cluster import pieces
from gmp_atl_dist.stages.label_plan import LabelPlan
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import read_codebooks
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

BUDGET_GIB = 0.5
"""The least that a worker can be given."""
_WORKERS = (1, 4)
_SCALES = (50, 100, 200)
_PIECES = 256
_INITIALIZATION_FRAMES = 20_000
_ALL_FRAMES = FrameSample(UtteranceSample(1.0, 0))
_BYTES_PER_VALUE = 2
_WATCH_EVERY_S = 0.2
_WORKER_TITLE = "ray::PoolProcess"


def multiscale(root: Path, frames: int, rounds: int) -> Spread:
    """CPU of three scales in the same assignment steps over stored frames, over the sum of each alone."""
    corpus, features = store_structured(root, frames)
    tasks = pieces(features, STORED_LAYER, _PIECES)
    x_MD = structured(min(frames, _INITIALIZATION_FRAMES))
    fits = [Fit("benchmark", k, 0, iterations=6, tolerance=0.0) for k in _SCALES]
    states = [
        State(
            initial_centroids(x_MD, k, init="k-means++", metric="euclidean", seed=0, what="scale")
        )
        for k in _SCALES
    ]
    # So little memory that parts are read again in each assignment step.
    workers = ClusterWorkersConfig(memory_gib=BUDGET_GIB)
    selection = FrameSelection(
        TrainingSet(corpus, STORED_FOLD.training_speakers()), features, _ALL_FRAMES, False, None
    )

    def cpu_s(scales: Sequence[int]) -> float:
        fitter = Fitter(FitterArgument(selection, workers))

        def over_all(requests: Sequence[Request]) -> list[ClusterStatistics]:
            totals = [ClusterStatistics.zero(*r.centroids_KD.shape) for r in requests]
            for task in tasks:
                answers = cast("list[ClusterStatistics]", fitter(task, Assign(requests)))
                for total, answer in zip(totals, answers, strict=True):
                    total.add(answer)
            return totals

        started_s = time.process_time()
        for _ in run_fits([fits[i] for i in scales], [states[i] for i in scales], over_all):
            pass
        return time.process_time() - started_s

    calls = {"three scales together": partial(cpu_s, range(len(_SCALES)))}
    calls |= {f"k = {k} alone": partial(cpu_s, [i]) for i, k in enumerate(_SCALES)}
    together, *alone = interleaved(calls, rounds).values()
    sums = [sum(of_round) for of_round in zip(*alone, strict=True)]
    print(
        f"three scales: {Spread.of(together):.2f} s of CPU together, {Spread.of(sums):.2f} s alone"
    )
    return ratios(together, sums)


def distributed(root: Path, frames: int, iterations: int, rounds: int) -> Spread:
    """CPU of all processes of a local Ray, their start included: four workers over one.

    Raises:
        RuntimeError: the two made different codebooks.
    """
    corpus, features = store_structured(root, frames)
    calls = {
        f"{n} workers": partial(
            _fit_on_ray, corpus, features, workers=n, k=500, iterations=iterations
        )
        for n in _WORKERS
    }
    one, four = interleaved(calls, rounds).values()
    for n, runs in zip(_WORKERS, (one, four), strict=True):
        cpu_s, workers_s = (Spread.of(getattr(r, name) for r in runs) for name in _CLOCKS)
        print(f"{n} workers: {cpu_s:.1f} s of CPU, of which theirs {workers_s:.1f} s")
    if any(a.codebooks != b.codebooks for a, b in zip(one, four, strict=True)):
        raise RuntimeError("the codebooks of one worker and of four differ")
    return ratios([run.cpu_s for run in four], [run.cpu_s for run in one])


def memory(root: Path, times: int) -> Spread:
    """Peak memory of a worker over its budget, with frames that take ``times`` as much."""
    frames = int(times * BUDGET_GIB * GIB / (_BYTES_PER_VALUE * DIM))
    corpus, features = store_structured(root, frames)
    run = _fit_on_ray(corpus, features, workers=1, k=100, iterations=2, memory_gib=BUDGET_GIB)
    peak_gib = run.peak_bytes / GIB
    print(
        f"memory: {frames} frames of {times * BUDGET_GIB:g} GiB, budget {BUDGET_GIB} GiB, peak "
        f"{peak_gib:.3f} GiB"
    )
    return Spread.of([peak_gib / BUDGET_GIB])


@dataclass
class RayRun:
    """What a fit took: CPU of the driver and all of Ray's processes, and of the workers alone."""

    cpu_s: float = 0.0
    workers_cpu_s: float = 0.0
    peak_bytes: int = 0
    codebooks: list[str] = field(default_factory=list)


_CLOCKS = ("cpu_s", "workers_cpu_s")


def _fit_on_ray(
    corpus: Artifact,
    features: Artifact,
    *,
    workers: int,
    k: int,
    iterations: int,
    memory_gib: float = 4.0,
) -> RayRun:
    """Fit one scale on a Ray of its own, without what an earlier run left."""
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
    context = Context(store, store, settings, Reporter(False), RayConnection(settings))
    stage = ClusterStage(
        config,
        features,
        TrainingSet(corpus, STORED_FOLD.training_speakers()),
        LabelPlan(False, 1, lambda: _ALL_FRAMES),
    )
    # Four workers on fewer cores: their CPU is measured, not how soon they are done.
    with local_ray(cores=max(_WORKERS)):
        with _watched() as run:
            out = ArtifactWriter(store, stage.key)
            stage.run(context, out)
            artifact = out.seal(version=stage.version, science={}, inputs={})
        run.codebooks = [book.fingerprint for book in read_codebooks(artifact)]
        return run


@contextmanager
def _watched() -> Iterator[RayRun]:
    """Read the clocks of this process and all below it, five times a second."""
    run, stop = RayRun(), threading.Event()
    before, last = _clocks(), dict[int, float]()
    workers, peaks = dict[int, float](), dict[int, int]()

    def watch() -> None:
        while not stop.wait(_WATCH_EVERY_S):
            last.update(_clocks())
            for process in descendants():
                with suppress(psutil.NoSuchProcess, OSError):
                    if any(word.startswith(_WORKER_TITLE) for word in process.cmdline()):
                        workers[process.pid] = last.get(process.pid, 0.0)
                        peaks[process.pid] = max(peaks.get(process.pid, 0), peak_bytes(process.pid))

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
    """CPU seconds by process id; a process that has just ended is left out."""
    clocks = {p.pid: cpu_seconds(p) for p in (psutil.Process(), *descendants())}
    return {pid: seconds for pid, seconds in clocks.items() if seconds}
