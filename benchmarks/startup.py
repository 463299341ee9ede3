"""How long a gang of two workers takes to start, with workers that are forked and ones that start anew.

    python -m benchmarks.startup

Each measurement starts a gang on a Ray that runs, whose workers import what a training imports and return.
CPU seconds are those of all processes of that Ray. They hardly depend on other work on the machine.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread
from benchmarks.subjects.starting import Start, start_gangs

KEYS = {
    "start_s": "seconds from the start of a gang to its end, workers forked",
    "start_cpu_s": "CPU seconds of that",
    "start_anew_s": "seconds, each worker started anew",
    "start_anew_cpu_s": "CPU seconds of that",
}


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rounds",
        type=positive,
        default=3,
        metavar="N",
        help="gangs that are measured of each kind",
    )


def _measure(args: Namespace) -> dict[str, Spread]:
    found: dict[str, Spread] = {}
    for name, forked in (("start_anew", False), ("start", True)):
        starts: list[Start] = run_alone(partial(start_gangs, args.rounds, forked))
        found[f"{name}_s"] = Spread.of(start.wall_s for start in starts)
        found[f"{name}_cpu_s"] = Spread.of(start.cpu_s for start in starts)
    return found


BENCHMARK = Benchmark(
    name="startup",
    about=__doc__,
    keys=KEYS,
    quick={"rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
