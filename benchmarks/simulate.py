"""What the head of a cluster has to do for 64 and 512 GPUs that are pretended.

    python -m benchmarks.simulate
    python -m benchmarks.simulate --devices 64 --parts 500      # a minute or two

The planner, Ray's scheduling and our side of it are real; the devices are not. Processes stand for many
devices each (512 processes do not fit on one machine): they hold that many of Ray's logical GPUs, and
sleep for so much less.

- Planning: parts of ten minutes over an index of five-second utterances.
- Bundles: the time in which Ray sets aside one logical GPU for each of N bundles.
- Head: CPU time per part of the driver, and of Ray's control store and raylet, at the rate that this
  machine reaches. The rate that the devices ask for is printed beside it. Workers share the cores here,
  so the rate is a lower bound.

Figures in the last line are those of the most hours and the most devices.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread, interleaved

KEYS = {
    "hours": "of the largest corpus that was planned",
    "planned_parts": "parts of it",
    "planning_s": "seconds to plan them",
    "planning_peak_gib": "peak memory of the planning process, GiB",
    "devices": "the most devices that were pretended",
    "parts": "streamed through them",
    "bundles_s": "seconds until Ray had set aside one GPU for each device",
    "asked_parts_per_s": "parts per second that the devices ask for",
    "reached_parts_per_s": "parts per second that this machine reached",
    "driver_cpu_ms_per_part": "CPU milliseconds per part, driver",
    "ray_cpu_ms_per_part": "CPU milliseconds per part, control store and raylet",
    "driver_peak_gib": "peak memory of the driver, GiB",
}
_HEAD = tuple(KEYS)[6:]


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--devices", type=positive, nargs="+", default=[64, 512], metavar="N", help="GPUs"
    )
    parser.add_argument(
        "--parts", type=positive, default=2000, metavar="N", help="the first 8 do not count"
    )
    parser.add_argument(
        "--times-real-time", type=float, default=1200.0, metavar="X", help="speed of one device"
    )
    parser.add_argument(
        "--hours",
        type=positive,
        nargs="+",
        default=[1_000, 10_000],
        metavar="N",
        help="of audio to plan",
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="repetitions of every measurement"
    )


def _measure(args: Namespace) -> dict[str, float | Spread | None]:
    from benchmarks.subjects.devices import plan_hours, simulate_head

    hours, devices = sorted(set(args.hours)), sorted(set(args.devices))
    plans = list(
        interleaved(
            {f"{h} h": partial(run_alone, partial(plan_hours, h)) for h in hours}, args.rounds
        ).values()
    )
    for of_hours in plans:
        print(
            f"{of_hours[0].hours:,} h: {of_hours[0].parts:,} parts planned in "
            f"{_spread(of_hours, 'seconds'):.2f} s, peak {_spread(of_hours, 'peak_gib'):.2f} GiB"
        )
    calls = {
        f"{n} devices": partial(
            run_alone, partial(simulate_head, n, args.parts, args.times_real_time)
        )
        for n in devices
    }
    heads = list(interleaved(calls, args.rounds).values())
    for of_devices in heads:
        values = ", ".join(f"{name} {_spread(of_devices, name):.3g}" for name in _HEAD)
        print(f"{of_devices[0].devices} devices, {of_devices[0].parts} parts: {values}")
    return {
        "hours": plans[-1][0].hours,
        "planned_parts": plans[-1][0].parts,
        "planning_s": _spread(plans[-1], "seconds"),
        "planning_peak_gib": _spread(plans[-1], "peak_gib"),
        "devices": heads[-1][0].devices,
        "parts": heads[-1][0].parts,
        **{name: _spread(heads[-1], name) for name in _HEAD},
    }


def _spread(measured: Sequence[object], name: str) -> Spread:
    return Spread.of(getattr(of_round, name) for of_round in measured)


BENCHMARK = Benchmark(
    name="simulate",
    about=__doc__,
    keys=KEYS,
    quick={"devices": [16, 64], "parts": 200, "hours": [100, 1_000], "rounds": 1},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())
