"""What is around the model, from ten thousand utterances to a million, and on one to four devices.

    python -m benchmarks.scale
    python -m benchmarks.scale --sizes 10000 100000     # without the million, which writes some 3 GB

- growth: a corpus of one-frame utterances, 120 a part as of real speech, and a model that costs nothing.
  Each size runs in a process of its own: planning, the whole of ``extract``, the driver's peak memory.
- requests: one part written to and read from a real S3 server, HTTP requests counted on the way.
- devices: parts of ten minutes and a model that sleeps as a GPU would compute, on 1, 2 and 4 workers.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import ray

from benchmarks.requests import counted_requests
from benchmarks.standin import stand_in
from gmp_atl_dist import runtime
from gmp_atl_dist.config import RuntimeConfig, StreamWorkersConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
from gmp_atl_dist.inference.extractor import (
    Extractor,
    ExtractorArgument,
    ForwardArgument,
)
from gmp_atl_dist.inference.forward import Loader
from gmp_atl_dist.records import AUDIO_SCHEMA, UTTERANCE_SCHEMA, Fold
from gmp_atl_dist.runtime import RayConnection, Task
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, find_artifact
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import INDEX_PART
from gmp_atl_dist.store.training_set import TrainingSet

_A_PART = 120
_LAYERS = (6, 9)
_FOLD = Fold("scale", train_speakers=tuple(f"s{i:02d}" for i in range(50)), test_speakers=("test",))
_CORPUS = ArtifactKey("ingest", "0" * 64)
_WORKERS = (1, 2, 4)
_DEVICE_PARTS = 48
_DEVICE_PART_S = 600
_DEVICE_TIMES_REAL_TIME = 1200.0


@dataclass(frozen=True)
class Growth:
    """One size of corpus."""

    utterances: int
    parts: int
    planning_s: float
    run_s: float
    driver_peak_gib: float

    @property
    def overhead_ms_per_part(self) -> float:
        return 1000 * self.run_s / self.parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asdict(_grow(Store.open(args.root), args.one))))
        return
    grown = [_in_own_process(size) for size in args.sizes]
    for g in grown:
        print(
            f"{g.utterances:9,} utterances, {g.parts:5,} parts: planned in {g.planning_s:.2f} s, run in "
            f"{g.run_s:.1f} s, {g.overhead_ms_per_part:.1f} ms a part, driver's peak "
            f"{g.driver_peak_gib:.2f} GiB"
        )
    requests = _requests()
    print(f"storage requests for a part of {len(_LAYERS)} layers: {requests}")
    rates = {n: _device_rate(n) for n in _WORKERS}
    for n, rate in rates.items():
        share = rate / n / rates[1]
        print(f"{n} devices: {rate:.0f} audio hours an hour, {100 * share:.1f} % of {n} times one")
    last = grown[-1]
    print(
        json.dumps(
            {
                "driver_rss_gib_1m": round(last.driver_peak_gib, 3),
                "utterances": last.utterances,
                "growth_exponent": round(_exponent(grown), 3),
                "overhead_ms_per_part": round(last.overhead_ms_per_part, 2),
                "planning_s": round(last.planning_s, 2),
                "storage_requests_per_part": sum(requests.values()),
                "efficiency_4_workers": round(rates[4] / 4 / rates[1], 3),
            }
        )
    )


def _exponent(grown: list[Growth]) -> float:
    """Slope of log time over log utterances, least squares."""
    if len(grown) < 2:
        return math.nan
    x = [math.log(g.utterances) for g in grown]
    y = [math.log(g.planning_s + g.run_s) for g in grown]
    return statistics.linear_regression(x, y).slope


def _in_own_process(size: int) -> Growth:
    with tempfile.TemporaryDirectory() as root:
        _write_corpus(Store.open(root), size, samples=400, a_part=_A_PART)
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(size), "--root", root]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{size} failed: {(done.stdout + done.stderr)[-2000:]}")
        return Growth(**json.loads(done.stdout.splitlines()[-1]))


def _grow(store: Store, size: int) -> Growth:
    """Plan and extract, less what a run of a single part takes: starting the workers."""
    workers = StreamWorkersConfig(workers=1, batch_s=60.0)
    context = _context(store, workers)
    with context.cluster as cluster:
        cluster.open()
        starting_s = 0.0
        # The second one: the first also starts what Ray itself needs once.
        for name in ("cold", "warm"):
            started_s = time.perf_counter()
            _extract(context, [Task(name, json.dumps([["part-00000", 0, 1]]))], workers, name)
            starting_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        tasks = plan_parts(TrainingSet(_corpus(store), _FOLD, False).index(), _A_PART)
        planned_s = time.perf_counter()
        artifact = _extract(context, tasks, workers, "all")
        finished_s = time.perf_counter()
    assert sum(r.rows for r in artifact.manifest.receipts) == size * len(_LAYERS)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_s = finished_s - planned_s - starting_s
    return Growth(size, len(tasks), planned_s - started_s, run_s, peak_kib / (1 << 20))


def _device_rate(devices: int) -> float:
    """Audio hours an hour with ``devices`` that compute at a fixed rate."""
    workers = StreamWorkersConfig(workers=devices, batch_s=60.0)
    with tempfile.TemporaryDirectory() as root:
        store = Store.open(root)
        _write_corpus(store, 240, samples=_DEVICE_PART_S * 16_000 // 120, a_part=_A_PART)
        whole = [
            Task(f"t{i:05d}", json.dumps([[f"part-0000{i % 2}", 0, 120]]))
            for i in range(_DEVICE_PARTS)
        ]
        argument = _argument(
            store, ArtifactKey("extract", "device"), 8, 1 / _DEVICE_TIMES_REAL_TIME, workers
        )
        seen_s: list[float] = []
        # As many cores as devices: the workers sleep, and readers are what keeps this machine busy.
        ray.init(
            address="local", num_cpus=devices, include_dashboard=False, logging_level=logging.ERROR
        )
        try:
            for _ in runtime.stream_tasks(
                whole,
                partial(AudioSlices, argument.forward.heard),
                Extractor,
                argument,
                workers=workers,
                retries=0,
            ):
                seen_s.append(time.perf_counter())
        finally:
            ray.shutdown()
    # From when all devices have done their first part: before, some are still starting.
    window_s = seen_s[-1] - seen_s[devices - 1]
    return (len(seen_s) - devices) * _DEVICE_PART_S / window_s


def _requests() -> dict[str, int]:
    """HTTP requests of one part: what a reader and a worker ask of S3."""
    with counted_requests() as (uri, counts):
        store = Store.open(uri)
        _write_corpus(store, _A_PART, samples=16_000, a_part=_A_PART)
        argument = _argument(
            store, ArtifactKey("extract", "requests"), 8, 0.0, StreamWorkersConfig()
        )
        reader, worker = AudioSlices(argument.forward.heard), Extractor(argument)
        task = Task("part-00000", json.dumps([["part-00000", 0, _A_PART]]))
        worker.compute(task, reader(task))()
        counts.clear()
        worker.compute(task, reader(task))()
        return dict(counts)


def _context(store: Store, workers: StreamWorkersConfig) -> Context:
    settings = RuntimeConfig(root=store.uri, extract=workers)
    return Context(store, store, settings, Reporter(False), RayConnection(settings))


def _argument(
    store: Store, key: ArtifactKey, dim: int, sleep: float, workers: StreamWorkersConfig
) -> ExtractorArgument:
    corpus = _corpus(store)
    load: Loader = stand_in(dim, sleep)
    heard = AudioSelection(corpus, frozenset(_FOLD.train_speakers))
    forward = ForwardArgument(heard, corpus, load, _LAYERS, 3000, 250, workers.batch_s)
    return ExtractorArgument(forward, "none", store, key)


def _extract(
    context: Context, tasks: list[Task], workers: StreamWorkersConfig, name: str
) -> Artifact:
    key = ArtifactKey("extract", name)
    out = ArtifactWriter(context.store, key)
    argument = _argument(context.store, key, 8, 0.0, workers)
    map_parts(
        context,
        out,
        "extract",
        tasks,
        Extractor,
        argument,
        workers,
        outputs=lambda part: [feature_part_name(part, layer) for layer in _LAYERS],
        reader=partial(AudioSlices, argument.forward.heard),
    )
    return out.seal(version=1, science={}, inputs={})


def _corpus(store: Store) -> Artifact:
    found = find_artifact(store, _CORPUS)
    if found is None:
        raise RuntimeError(f"{store.uri} holds no corpus")
    return found


def _write_corpus(store: Store, size: int, *, samples: int, a_part: int) -> None:
    """What ``ingest`` leaves, of silence: parts of audio and the index of all."""
    out = ArtifactWriter(store, _CORPUS)
    pcm16 = np.zeros(samples, dtype="<i2").tobytes()
    speakers = _FOLD.train_speakers
    indexes: list[pa.Table] = []
    for part, first in enumerate(range(0, size, a_part)):
        count = min(a_part, size - first)
        columns = {
            "utterance_id": [f"utterance-{i:08d}" for i in range(first, first + count)],
            "speaker": [speakers[(first + i) % len(speakers)] for i in range(count)],
            "gender": ["female"] * count,
            "emotion": ["neutral"] * count,
            "session": [""] * count,
            "split": [""] * count,
            "num_samples": [samples] * count,
            "audio_sha256": [os.urandom(32).hex() for _ in range(count)],
            "part": [f"part-{part:05d}"] * count,
            "row": list(range(count)),
        }
        indexes.append(pa.table(columns, schema=UTTERANCE_SCHEMA))
        audio = pa.table({**columns, "pcm16": [pcm16] * count}, schema=AUDIO_SCHEMA)
        out.put_part(f"part-{part:05d}", audio, row_group_rows=64)
    out.put_part(INDEX_PART, pa.concat_tables(indexes))
    out.seal(version=1, science={}, inputs={}, notes={"emotions": '["neutral"]'})


if __name__ == "__main__":
    main()
