"""Devices that are pretended: the rate of several, and what a cluster's head does for many.

A process of Ray stands for a device, or for many of them; it sleeps as long as they would compute.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.harness.local_ray import local_ray
from benchmarks.harness.processes import GIB, peak_bytes
from benchmarks.harness.rounds import rate
from benchmarks.harness.steady import SteadyClock
from benchmarks.inputs.silence import (
    PART_UTTERANCES,
    extractor_argument,
    part_task,
    write_corpus,
)
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.inference.audio_slices import AudioSlices
from gmp_atl_dist.inference.extractor import Extractor
from gmp_atl_dist.runtime import Task, stream_tasks
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.filesystem import Store

PART_S = 600.0
TIMES_REAL_TIME = 1200.0
"""Of one device."""
PROCESSES = 4
"""That stand for the devices of a simulation."""
WARM_UP_PARTS = 2 * PROCESSES
"""Until all processes have started."""
_BATCH_S = 60.0
_CORPUS_PARTS = 2
_FRAMES_PER_S = 50
_UTTERANCE_FRAMES = 249
_UTTERANCES_PER_HOUR = 720
_HEAD_PROCESSES = ("gcs_server", "raylet")
_BUNDLES_LIMIT_S = 120


def device_rate(devices: int, parts: int) -> float:
    """Audio hours per hour with ``devices`` that compute at a fixed rate, on parts of ten minutes."""
    workers = StreamWorkersConfig(workers=devices, batch_s=_BATCH_S)
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as root:
        samples = int(PART_S * SAMPLE_RATE_HZ) // PART_UTTERANCES
        write_corpus(root, _CORPUS_PARTS * PART_UTTERANCES, samples=samples)
        argument = extractor_argument(Store.open(root), "device", workers, 1 / TIMES_REAL_TIME)
        tasks = [part_task(f"t{i:05d}", i % _CORPUS_PARTS) for i in range(parts)]
        reader = partial(AudioSlices, argument.forward.selection)
        # From when all devices have done their first part: before, some are still starting.
        clock = SteadyClock(parts, devices, "parts")
        # As many cores as devices: the workers sleep, and readers are what keeps this machine busy.
        with local_ray(cores=devices):
            for _ in stream_tasks(tasks, reader, Extractor, argument, workers=workers, retries=0):
                clock.tick()
    return clock.steady().items_per_s * PART_S


@dataclass(frozen=True)
class Head:
    """What the parts of ``devices`` pretended GPUs cost around them, in one round."""

    devices: int
    parts: int
    bundles_s: float
    asked_parts_per_s: float
    reached_parts_per_s: float
    driver_cpu_ms_per_part: float
    ray_cpu_ms_per_part: float
    driver_peak_gib: float


def simulate_head(devices: int, parts: int, times_real_time: float) -> Head:
    """Stream ``parts`` parts of ten minutes through ``devices`` logical GPUs of a local Ray."""
    workers = StreamWorkersConfig(workers=PROCESSES, readers=PROCESSES, reader_cpus=0)
    # A configuration refuses more GPUs than a process can use; these are pretended ones.
    workers = workers.model_copy(update={"gpus": devices / PROCESSES})
    tasks = [part_task(f"part-{i:05d}", i) for i in range(parts)]
    sleep_s = PART_S / times_real_time * PROCESSES / devices
    clock = SteadyClock(parts, WARM_UP_PARTS, "parts", _HEAD_PROCESSES)
    with local_ray(cores=PROCESSES, gpus=devices):
        bundles_s = _bundles_s(devices)
        for _ in stream_tasks(tasks, _Reads, _Sleeps, sleep_s, workers=workers, retries=0):
            clock.tick()
    steady = clock.steady()
    return Head(
        devices=devices,
        parts=parts,
        bundles_s=bundles_s,
        asked_parts_per_s=devices * times_real_time / PART_S,
        reached_parts_per_s=steady.items_per_s,
        driver_cpu_ms_per_part=1000 * rate(steady.own_cpu_s, steady.items, "CPU per part"),
        ray_cpu_ms_per_part=1000 * rate(steady.others_cpu_s, steady.items, "CPU per part"),
        driver_peak_gib=peak_bytes() / GIB,
    )


class _Reads:
    def __call__(self, task: Task) -> pa.Table:
        return pa.table({"sample": np.zeros(10, dtype=np.int16)})


class _Sleeps:
    """A process that stands for some devices: a part takes it that much less time."""

    def __init__(self, sleep_s: float) -> None:
        self._sleep_s = sleep_s

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        time.sleep(self._sleep_s)
        receipt = {"name": task.name, "rows": PART_UTTERANCES, "audio_s": PART_S}
        return lambda: json.dumps([receipt])


def _bundles_s(devices: int) -> float:
    """Seconds in which Ray sets aside one logical GPU for each of ``devices`` bundles."""
    from ray.util.placement_group import placement_group, remove_placement_group

    started_s = time.perf_counter()
    group = placement_group([{"GPU": 1}] * devices)
    if not group.wait(_BUNDLES_LIMIT_S):
        raise RuntimeError(f"Ray set aside no {devices} GPUs within {_BUNDLES_LIMIT_S} s")
    seconds = time.perf_counter() - started_s
    remove_placement_group(group)
    return seconds


@dataclass(frozen=True)
class Planning:
    """Planning the parts of a corpus of so many hours, in one round."""

    hours: int
    parts: int
    seconds: float
    peak_gib: float


def plan_hours(hours: int) -> Planning:
    """Plan parts of ten minutes over an index of five-second utterances."""
    count = hours * _UTTERANCES_PER_HOUR
    part, row = np.divmod(np.arange(count), PART_UTTERANCES)
    names = pa.array([f"part-{i:05d}" for i in range(int(part[-1]) + 1)])
    parts = pa.chunked_array([pa.DictionaryArray.from_arrays(part.astype(np.int32), names)])
    frames = pa.array(np.full(count, _UTTERANCE_FRAMES))
    index = pa.table({"num_frames": frames, "part": parts, "row": pa.array(row)})
    started_s = time.perf_counter()
    tasks = plan_parts(index, int(PART_S * _FRAMES_PER_S))
    seconds = time.perf_counter() - started_s
    return Planning(hours, len(tasks), seconds, peak_bytes() / GIB)
