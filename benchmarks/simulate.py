"""What the head of a cluster has to do for 64 and 512 GPUs that are pretended.

    python -m benchmarks.simulate
    python -m benchmarks.simulate --devices 64 --parts 500      # in a minute or two

The stand-in is the device: planner, Ray's scheduling and our side of it are what runs. Processes that stand
for many devices each (512 of them do not fit on one machine) hold that many of Ray's logical GPUs, and
sleep for so much less.

- planning: ``plan_parts`` over an index of five-second utterances.
- scheduling: the time in which Ray sets aside one logical GPU for each of N bundles.
- head: CPU time a part of the driver, and of Ray's control store and raylet, at the rate that this machine
  reaches. What the devices ask for is printed beside it; workers share the cores here, so that the rate is a
  lower bound.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import psutil
import pyarrow as pa
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from gmp_atl_dist.config import StreamWorkersConfig
from gmp_atl_dist.runtime import Task, stream_tasks
from gmp_atl_dist.stages.part_plan import plan_parts

_PROCESSES = 4
_PART_S = 600.0
_UTTERANCE_FRAMES = 249
_HOUR_UTTERANCES = 720
_INGEST_ROWS = 120
_RAYS = ("gcs_server", "raylet")


@dataclass(frozen=True)
class Head:
    """What the parts of ``devices`` pretended GPUs cost around them."""

    devices: int
    parts: int
    bundles_s: float
    asked_parts_per_s: float
    reached_parts_per_s: float
    driver_cpu_ms_per_part: float
    ray_cpu_ms_per_part: float
    driver_peak_gib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--parts", type=int, default=2000)
    parser.add_argument("--times-real-time", type=float, default=1200.0, help="of one device")
    parser.add_argument("--hours", type=int, nargs="+", default=[1_000, 10_000])
    args = parser.parse_args()
    for hours in args.hours:
        seconds, parts = _plan(hours)
        print(
            f"{hours:,} h: {parts:,} parts planned in {seconds:.2f} s, peak {_peak_gib():.2f} GiB"
        )
    for devices in args.devices:
        print(json.dumps(asdict(_head(devices, args.parts, args.times_real_time))))


def _plan(hours: int) -> tuple[float, int]:
    """Seconds, and parts of ten minutes."""
    count = hours * _HOUR_UTTERANCES
    part, row = np.divmod(np.arange(count), _INGEST_ROWS)
    names = pa.array([f"part-{i:05d}" for i in range(int(part[-1]) + 1)])
    index = pa.table(
        {
            "num_frames": pa.array(np.full(count, _UTTERANCE_FRAMES)),
            "part": pa.chunked_array(
                [pa.DictionaryArray.from_arrays(part.astype(np.int32), names)]
            ),
            "row": pa.array(row),
        }
    )
    started_s = time.perf_counter()
    tasks = plan_parts(index, int(_PART_S * 50))
    return time.perf_counter() - started_s, len(tasks)


class _Reads:
    def __call__(self, task: Task) -> pa.Table:
        return pa.table({"sample": np.zeros(10, dtype=np.int16)})


class _Sleeps:
    """A process that stands for some devices: it takes a part of that much less time."""

    def __init__(self, part_s: float) -> None:
        self._part_s = part_s

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        time.sleep(self._part_s)
        return lambda: json.dumps([{"name": task.name, "rows": 120, "audio_s": _PART_S}])


def _head(devices: int, parts: int, times_real_time: float) -> Head:
    workers = StreamWorkersConfig(
        workers=_PROCESSES, gpus=devices / _PROCESSES, readers=_PROCESSES, reader_cpus=0
    )
    ray.init(
        address="local",
        num_cpus=_PROCESSES,
        num_gpus=devices,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        bundles_s = _bundles_s(devices)
        tasks = [
            Task(f"part-{i:05d}", json.dumps([[f"part-{i:05d}", 0, 120]])) for i in range(parts)
        ]
        part_s = _PART_S / times_real_time * _PROCESSES / devices
        done = 0
        began_s = driver_s = rays_s = 0.0
        for _ in stream_tasks(tasks, _Reads, _Sleeps, part_s, workers=workers, retries=0):
            done += 1
            if done == 2 * _PROCESSES:  # all have started
                began_s, driver_s, rays_s = time.perf_counter(), time.process_time(), _rays_cpu_s()
        counted = done - 2 * _PROCESSES
        return Head(
            devices,
            parts,
            round(bundles_s, 3),
            round(devices * times_real_time / _PART_S, 1),
            round(counted / (time.perf_counter() - began_s), 1),
            round(1000 * (time.process_time() - driver_s) / counted, 2),
            round(1000 * (_rays_cpu_s() - rays_s) / counted, 2),
            round(_peak_gib(), 2),
        )
    finally:
        ray.shutdown()


def _bundles_s(devices: int) -> float:
    started_s = time.perf_counter()
    group = placement_group([{"GPU": 1}] * devices)
    if not group.wait(120):
        raise RuntimeError(f"Ray set aside no {devices} GPUs within 120 s")
    seconds = time.perf_counter() - started_s
    remove_placement_group(group)
    return seconds


def _rays_cpu_s() -> float:
    """Of the control store and the raylet that this process has started."""
    total_s = 0.0
    for process in psutil.Process().children(recursive=True):
        if process.name() in _RAYS:
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    main()
